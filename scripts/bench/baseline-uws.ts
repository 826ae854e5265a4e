/**
 * A minimal proxy in one thread: uWebSockets.js in front, one undici pool per replica, round robin.
 * It decides nothing, checks nothing and counts nothing; what it costs is what the two libraries
 * cost. Usage: node baseline-uws.ts PORT REPLICA_URL...
 */

import { App, type HttpResponse } from 'uWebSockets.js';
import { type Dispatcher, Pool } from 'undici';

const [port, ...replicas] = process.argv.slice(2);
const pools = replicas.map((url) => new Pool(url, { pipelining: 1, connections: 2048 }));
let turn = 0;

function relay(
  res: HttpResponse,
  method: Dispatcher.HttpMethod,
  path: string,
  body: Buffer | null,
) {
  const pool = pools[turn++ % pools.length] as Pool;
  let aborted = false;
  let controller: Dispatcher.DispatchController | undefined;
  res.onAborted(() => {
    aborted = true;
    controller?.abort(new Error('client gone'));
  });
  pool.dispatch(
    { path, method, body, headers: { 'content-type': 'application/json' } },
    responseHandler(
      res,
      () => aborted,
      (started) => {
        controller = started;
      },
    ),
  );
}

function responseHandler(
  res: HttpResponse,
  isAborted: () => boolean,
  onStart: (controller: Dispatcher.DispatchController) => void,
): Dispatcher.DispatchHandler {
  let sized: Buffer[] | undefined;
  return {
    onRequestStart: onStart,
    onResponseStart(_controller, status, headers) {
      if (isAborted()) return;
      // uWS sends a content-length only with end(); such an answer is held until it is whole.
      if (headers['content-length'] !== undefined) sized = [];
      res.cork(() => {
        res.writeStatus(`${status}`);
        const type = headers['content-type'];
        if (typeof type === 'string') res.writeHeader('content-type', type);
      });
    },
    onResponseData(controller, chunk) {
      if (sized !== undefined) {
        sized.push(chunk);
        return;
      }
      if (isAborted()) return;
      let fits = true;
      res.cork(() => {
        fits = res.write(chunk);
      });
      if (fits) return;
      controller.pause();
      res.onWritable(() => {
        controller.resume();
        return true;
      });
    },
    onResponseEnd() {
      if (isAborted()) return;
      const whole = sized === undefined || sized.length === 1 ? sized?.[0] : Buffer.concat(sized);
      res.cork(() => {
        if (whole === undefined) res.end();
        else res.end(whole);
      });
    },
    onResponseError() {
      if (!isAborted()) res.close();
    },
  };
}

App()
  .get('/*', (res, req) => relay(res, 'GET', req.getUrl(), null))
  .post('/*', (res, req) => {
    const path = req.getUrl();
    const parts: Buffer[] = [];
    res.onAborted(() => {});
    res.onData((part, last) => {
      // The buffer is only valid inside this callback.
      parts.push(Buffer.from(new Uint8Array(part).slice()));
      if (last)
        relay(res, 'POST', path, parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts));
    });
  })
  .listen('127.0.0.1', Number(port), (socket) => {
    if (!socket) throw new Error(`cannot listen on ${port}`);
  });

process.once('SIGTERM', () => process.exit(0));
