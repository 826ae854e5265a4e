import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { type LoadPlan, runLoad } from '../../src/load/generator.ts';
import { loadReport } from '../../src/load/report.ts';
import { createRequestTemplate } from '../../src/load/request-template.ts';

const answer = JSON.stringify({
  choices: [{ message: { role: 'assistant', content: 'a b c' } }],
  usage: { prompt_tokens: 2, completion_tokens: 3 },
});

/** The keys of `vllm bench serve`, written out: the report must have these and `sluice`, no others. */
const vllmKeys = [
  ...['duration', 'completed', 'failed', 'total_input_tokens', 'total_output_tokens'],
  ...['request_throughput', 'request_goodput', 'output_throughput', 'total_token_throughput'],
  ...['max_output_tokens_per_s', 'max_concurrent_requests'],
  ...['ttft', 'tpot', 'itl', 'e2el', 'client_queue_time', 'e2el_including_client_queue'].flatMap(
    (name) =>
      ['mean', 'median', 'std', 'p50', 'p90', 'p95', 'p99'].map((stat) => `${stat}_${name}_ms`),
  ),
];

const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0)) close();
});

interface Target {
  readonly port: number;
  /** How often each x-request-id arrived. */
  readonly ids: Map<string, number>;
}

type Handler = (response: ServerResponse, request: IncomingMessage, nth: number) => void;

async function serve(handler: Handler): Promise<Target> {
  const ids = new Map<string, number>();
  let nth = 0;
  const server = createServer((request, response) => {
    const id = String(request.headers['x-request-id']);
    ids.set(id, (ids.get(id) ?? 0) + 1);
    const number = nth++;
    request.resume();
    request.on('end', () => handler(response, request, number));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => closeServer(server));
  return { port: (server.address() as AddressInfo).port, ids };
}

function closeServer(server: Server): void {
  server.closeAllConnections();
  server.close();
}

function plan(port: number, changes: Partial<LoadPlan> = {}): LoadPlan {
  const stream = changes.stream === true;
  return {
    targets: [{ host: '127.0.0.1', port }],
    template: createRequestTemplate(
      {
        endpoint: '/v1/chat/completions',
        model: 'm',
        stream,
        inputTokens: 0,
        promptBytes: 0,
        outputTokens: 16,
        ignoreEos: false,
        seed: 1,
      },
      `127.0.0.1:${port}`,
    ),
    stream,
    requestRate: Number.POSITIVE_INFINITY,
    burstiness: 1,
    connections: 8,
    concurrencyMax: 8,
    durationMs: Number.POSITIVE_INFINITY,
    requestsMax: 100,
    warmupMs: 0,
    timeoutMs: 5000,
    seed: 1,
    idPrefix: 'run',
    expectTokens: -1,
    goodput: {},
    ...changes,
  };
}

const reply: Handler = (response) => {
  response.setHeader('content-type', 'application/json');
  response.end(answer);
};

function writeEvents(response: ServerResponse, events: readonly string[]): void {
  response.setHeader('content-type', 'text/event-stream');
  for (const event of events) response.write(`data: ${event}\n\n`);
}

function endEvents(response: ServerResponse, events: readonly string[]): void {
  writeEvents(response, events);
  response.end();
}

const token = '{"choices":[{"delta":{"content":"a"}}]}';

test('a closed loop sends exactly the requests asked for, each once, and reports them', async () => {
  const target = await serve(reply);
  const load = plan(target.port, { requestsMax: 500, expectTokens: 3 });
  const report = loadReport(load, await runLoad(load));
  expect(report).toMatchObject({ completed: 500, failed: 0, total_output_tokens: 1500 });
  expect(report.total_input_tokens).toBe(1000);
  expect(report.sluice.sent).toBe(500);
  expect(report.max_concurrent_requests).toBe(8);
  expect(target.ids.size).toBe(500);
  expect(new Set(target.ids.values())).toEqual(new Set([1]));
  expect(report.request_throughput).toBeCloseTo(500 / report.duration, 6);
});

test('the report has the keys of vllm bench serve and one of ours', async () => {
  const target = await serve((response) => endEvents(response, [token, token, '[DONE]']));
  const load = plan(target.port, { stream: true, requestsMax: 20, goodput: { ttft: 5000 } });
  const report = loadReport(load, await runLoad(load));
  expect(Object.keys(report).sort()).toEqual([...vllmKeys, 'sluice'].sort());
  expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  expect(report.request_goodput).toBeCloseTo(report.request_throughput, 6);
  expect(report.sluice.events).toBe(60);
  expect(report.sluice.itl_ms.count).toBe(20);
  expect(report.mean_ttft_ms).toBeGreaterThan(0);
  expect(report.p99_e2el_ms).toBeGreaterThanOrEqual(report.p99_ttft_ms);
});

test('goodput counts only the requests within every limit', async () => {
  const target = await serve((response, request, nth) => {
    if (nth % 4 === 0) setTimeout(() => reply(response, request, nth), 60);
    else reply(response, request, nth);
  });
  const load = plan(target.port, { requestsMax: 40, goodput: { e2el: 50 } });
  const result = await runLoad(load);
  expect(result.metrics.completed).toBe(40);
  expect(result.metrics.good).toBeLessThanOrEqual(30);
  expect(result.metrics.good).toBeGreaterThan(0);
});

test('an open loop sends every arrival of its time, and the warm-up is checked but not measured', async () => {
  const target = await serve(reply);
  const load = plan(target.port, {
    requestRate: 400,
    burstiness: Number.POSITIVE_INFINITY,
    requestsMax: Number.POSITIVE_INFINITY,
    warmupMs: 250,
    durationMs: 500,
  });
  const { metrics } = await runLoad(load);
  // A constant gap of 2.5 ms: 750 ms hold 299 or 300 arrivals; 100 of them are warm-up, to one.
  expect(metrics.completed).toBeGreaterThanOrEqual(199);
  expect(metrics.completed).toBeLessThanOrEqual(201);
  expect(metrics.warmup.failed).toBe(0);
  expect(metrics.warmup.completed + metrics.completed).toBe(metrics.sent);
  expect(target.ids.size).toBe(metrics.sent);
});

test('a stall of 500 ms shows in p99 from the intended time and hides in p99 from the send', async () => {
  let stallUntil = 0;
  const target = await serve((response, request, nth) => {
    if (nth === 100) stallUntil = performance.now() + 500;
    const wait = stallUntil - performance.now();
    if (wait > 0) setTimeout(() => reply(response, request, nth), wait);
    else reply(response, request, nth);
  });
  // One connection: a closed loop would see one slow answer in 400, this sees 100 late ones.
  const load = plan(target.port, {
    requestRate: 200,
    burstiness: Number.POSITIVE_INFINITY,
    connections: 1,
    concurrencyMax: 1,
    requestsMax: 400,
  });
  const { metrics } = await runLoad(load);
  expect(metrics.completed).toBe(400);
  expect(metrics.e2el.percentileMs(99)).toBeGreaterThan(450);
  expect(metrics.e2el.percentileMs(90)).toBeGreaterThan(200);
  expect(metrics.e2elFromSend.percentileMs(99)).toBeLessThan(200);
  expect(metrics.clientQueue.percentileMs(99)).toBeGreaterThan(400);
});

test('arrivals beyond the connections wait, and the wait is bounded by the limit', async () => {
  const target = await serve(() => {});
  const load = plan(target.port, {
    requestRate: 200,
    connections: 2,
    concurrencyMax: 2,
    requestsMax: 50,
    timeoutMs: 200,
  });
  const { metrics } = await runLoad(load);
  expect(metrics.completed).toBe(0);
  expect(metrics.failed).toBe(50);
  expect(metrics.sent + metrics.unsent).toBe(50);
  expect(target.ids.size).toBe(metrics.sent);
});

test('a backlog as long as the limit does not stop what the target can serve', async () => {
  const target = await serve((response, request, nth) => {
    setTimeout(() => reply(response, request, nth), 20);
  });
  // One connection serves at most 50 a second of 200: the wait reaches the limit and stays there.
  const load = plan(target.port, {
    requestRate: 200,
    burstiness: Number.POSITIVE_INFINITY,
    connections: 1,
    concurrencyMax: 1,
    requestsMax: 300,
    timeoutMs: 300,
  });
  const { metrics, durationMs } = await runLoad(load);
  expect(metrics.unsent).toBeGreaterThan(100);
  expect(metrics.failed).toBe(metrics.unsent);
  expect(metrics.completed).toBe(metrics.sent);
  // Served to the end of the run, not only until the backlog had grown.
  expect(metrics.completed).toBeGreaterThan(durationMs / 20 / 3);
});

const stream = { stream: true };
const faults: [string, Handler, string, Partial<LoadPlan>][] = [
  ['a connection reset before the answer', (r) => r.socket?.resetAndDestroy(), 'reset', {}],
  ['no answer', () => {}, 'timeout', { timeoutMs: 150 }],
  ['a 429', (r) => r.writeHead(429).end('{"error":{}}'), 'status4xx', {}],
  ['a 502', (r) => r.writeHead(502).end('{"error":{}}'), 'status5xx', {}],
  ['an error under 200', (r) => r.end('{"error":{"message":"x"}}'), 'errorBody', {}],
  ['no JSON under 200', (r) => r.end('<html>'), 'malformed', {}],
  [
    'another request’s id',
    (r) => r.writeHead(200, { 'x-request-id': 'foreign' }).end(answer),
    'mismatch',
    {},
  ],
  ['a stream without [DONE]', (r) => endEvents(r, [token]), 'truncated', stream],
  [
    'a stream that breaks in the middle',
    (r) => {
      writeEvents(r, [token]);
      r.write('data: {"cho', () => r.socket?.resetAndDestroy());
    },
    'truncated',
    stream,
  ],
  ['an error event', (r) => endEvents(r, [token, '{"error":{"code":502}}']), 'errorBody', stream],
];

test.each(faults)(
  '%s has its own class, and the run goes on',
  async (_name, fail, name, changes) => {
    const succeed: Handler = changes.stream
      ? (response) => endEvents(response, [token, '[DONE]'])
      : reply;
    const target = await serve((response, request, nth) =>
      (nth % 5 === 0 ? fail : succeed)(response, request, nth),
    );
    const load = plan(target.port, { requestsMax: 40, ...changes });
    const report = loadReport(load, await runLoad(load));
    expect(report.sluice.errors).toEqual({ [name]: 8 });
    expect(report).toMatchObject({ completed: 32, failed: 8 });
    expect(target.ids.size).toBe(40);
  },
);

test('a target that does not listen is a connect error for every request', async () => {
  const server = createTcpServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const load = plan(port, { requestsMax: 20 });
  const { sluice } = loadReport(load, await runLoad(load));
  expect(sluice.errors).toEqual({ connect: 20 });
  expect(sluice.connect_errnos).toEqual({ ECONNREFUSED: 20 });
  expect(sluice.sent).toBe(0);
});

test('an answer that closes its connection is complete, and the next request opens another', async () => {
  const target = await serve((response) => {
    response.setHeader('connection', 'close');
    response.end(answer);
  });
  const load = plan(target.port, { requestsMax: 30, connections: 2, concurrencyMax: 2 });
  const { metrics } = await runLoad(load);
  expect(metrics.completed).toBe(30);
  expect(target.ids.size).toBe(30);
});

test('a stopped run ends at once and counts what was open', async () => {
  let arrived: () => void = () => {};
  const someArrived = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const target = await serve(() => arrived());
  const stop = new AbortController();
  const load = plan(target.port, { requestsMax: 1000, connections: 4, concurrencyMax: 4 });
  const running = runLoad(load, { signal: stop.signal });
  await someArrived;
  stop.abort();
  const report = loadReport(load, await running);
  expect(report.sluice.errors).toEqual({ stopped: 4 });
});
