/**
 * The uWebSockets.js engine: the one file that touches it. Acceptor threads; never blocks.
 *
 * Invariants, each the answer to a measured fault of the binary (docs/adr): onAborted is the first
 * statement of the handler; nothing is thrown into native code; `res` is not touched once aborted or
 * ended; refusals leave from a later turn, so bytes behind them are never parsed as a request; one
 * cork carries at most corkBytesMax and nothing is written after the first refusal; a streamed
 * answer that must close ends with its own last chunk, because `end(body, true)` writes a header line
 * into a body that has begun; connections above the cap are closed before a descriptor runs out.
 */

import type { HttpRequest, HttpResponse, TemplatedApp, us_listen_socket } from 'uWebSockets.js';
import { assert } from '../lib/assert.ts';
import { listenErrorAt } from '../lib/listen-error.ts';
import { noBytes } from '../lib/no-bytes.ts';
import { quietTurn } from '../lib/quiet-turn.ts';
import { DescriptorWatch } from './descriptors.ts';
import { EdgeHead } from './edge-head.ts';
import {
  Closing,
  corkBytesMax,
  discardBytesMax,
  discardMs,
  type Exchange,
  type ExchangePeer,
  headBytesMax,
  type Listener,
  type ListenerHandler,
  type ListenerOptions,
} from './listener.ts';
import { statusLine } from './status-line.ts';
import { checkUwsBinary, noClientCertificates } from './uws-binary.ts';

/** First write after a refusal: small, because it is buffered whole when the socket is still full. */
const trialBytes = 256;
/** Ends a chunked body by hand; `writeHeader` puts `: ` and a line break around name and value. */
const lastChunkName = '\r\n0\r\nx-sluice-end';
const lastChunkValue = '1\r\n';

const State = { waiting: 0, headPending: 1, streaming: 2, lingering: 3, over: 4 } as const;
type State = (typeof State)[keyof typeof State];

type UwsModule = typeof import('uWebSockets.js');

export async function listenUws(
  options: ListenerOptions,
  handler: ListenerHandler,
): Promise<Listener> {
  const check = checkUwsBinary();
  if (!check.ok) throw new Error(check.reason);
  if (options.tls?.ca !== undefined) throw new Error(noClientCertificates);
  const uws = await import('uWebSockets.js');
  const listener = new UwsListener(uws, options, handler);
  await listener.listen(options);
  return listener;
}

function appOf(uws: UwsModule, { tls }: ListenerOptions): TemplatedApp {
  if (tls === null) return uws.App();
  const { cert, key, passphrase } = tls;
  const files = { cert_file_name: cert, key_file_name: key };
  return uws.SSLApp({ ...files, ...(passphrase === undefined ? {} : { passphrase }) });
}

class UwsListener implements Listener {
  readonly #uws: UwsModule;
  readonly #app: TemplatedApp;
  readonly #handler: ListenerHandler;
  readonly #head = new EdgeHead();
  readonly #descriptors = new DescriptorWatch();
  #socket: us_listen_socket | false = false;
  #closed = false;
  connections = 0;
  port = 0;
  /** An orderly close is the only one that does not abort the process. */
  readonly #atExit = (): void => void this.close();

  constructor(uws: UwsModule, options: ListenerOptions, handler: ListenerHandler) {
    this.#uws = uws;
    this.#handler = handler;
    this.#app = appOf(uws, options);
    this.#app.any('/*', (res, req) => this.#onRequest(res, req));
    this.#app.filter((res, change) => this.#onConnection(res, change, options.maxConnections));
  }

  /** `change` is 1 for a connection that opened and -1 for one that closed. */
  #onConnection(res: HttpResponse, change: number, connectionsMax: number): void {
    this.connections += change;
    if (change < 0) return;
    const isFull = this.connections > connectionsMax || this.#descriptors.isShort();
    if (isFull || !this.#handler.takesConnection()) res.close();
  }

  listen({ host, port }: ListenerOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#app.listen(host, port, (socket) => {
        if (socket === false) return void listenErrorAt(host, port).then(reject);
        this.#socket = socket;
        this.port = this.#uws.us_socket_local_port(socket as never);
        process.on('exit', this.#atExit);
        resolve();
      });
    });
  }

  async stopListening(): Promise<void> {
    await quietTurn(() => this.connections);
    if (this.#socket !== false && !this.#closed) this.#uws.us_listen_socket_close(this.#socket);
    this.#socket = false; // a second close of it would be a use after free
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    process.off('exit', this.#atExit);
    if (this.port !== 0) this.#app.close();
  }

  #onRequest(res: HttpResponse, req: HttpRequest): void {
    let exchange: UwsExchange | undefined;
    res.onAborted(() => exchange?.aborted());
    try {
      exchange = new UwsExchange(res, this.#handler);
      const head = this.#head;
      const path = req.getUrl();
      const query = req.getQuery() as string | undefined; // undefined when there is none
      head.reset(req.getCaseSensitiveMethod(), query ? `${path}?${query}` : path);
      req.forEach(head.add);
      exchange.open(head);
    } catch (error) {
      this.#handler.failed(error);
      exchange?.cutLater();
    }
  }
}

/** What a cork callback works on: set before `cork`, read by the callback within the same call. */
let corkOwner: UwsExchange | undefined;
let corkData: Uint8Array = noBytes;
let corkStart = 0;
let corkEnd = 0;
let corkAccepted = true;

const corkChunk = (): void => corkOwner?.writeChunk();
const corkAnswer = (): void => corkOwner?.writeAnswer();
const corkEndOfStream = (): void => corkOwner?.writeEnd();
/** An empty cork makes uWS send what it has buffered; without it the rest waits for our next write. */
const corkNothing = (): void => {};

class UwsExchange implements Exchange {
  readonly #res: HttpResponse;
  readonly #handler: ListenerHandler;
  #peer: ExchangePeer | undefined;
  #state: State = State.waiting;
  #isHead = false;
  #status = 0;
  #headers: readonly string[] = [];
  #linger: NodeJS.Timeout | undefined;
  #isTrial = false;
  #saysClose = false;
  /** Inside a callback of uWS, which must return before the socket is freed. */
  #isInCallback = false;
  /** Refused while its body was arriving; what comes of it is thrown away. */
  #isBodyDue = false;
  #discarded = 0;
  closing: Closing = Closing.keep;
  isBlocked = false;
  unconfirmedBytes = 0;
  hasBegun = false;

  constructor(res: HttpResponse, handler: ListenerHandler) {
    this.#res = res;
    this.#handler = handler;
  }

  get isOpen(): boolean {
    return this.#state < State.lingering;
  }

  open(head: EdgeHead): void {
    this.#isHead = head.method === 'HEAD';
    if (head.mustClose) this.closing = Closing.force;
    const error = head.check();
    if (error !== 0) return void this.#handler.reject(error, head, this);
    this.#peer = this.#handler.open(head, this);
    if (this.#peer === undefined && !this.#isBodyDue) return;
    this.#res.onWritable(() => this.#onWritable());
    this.#res.onData((chunk, isLast) => this.#onData(chunk, isLast));
  }

  #onData(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.#isBodyDue) this.#discard(chunk.byteLength, isLast);
    if (!this.isOpen || this.hasBegun) return;
    try {
      this.#peer?.body(new Uint8Array(chunk), isLast);
    } catch (error) {
      this.#handler.failed(error);
      this.cutLater();
    }
  }

  #discard(bytes: number, isLast: boolean): void {
    this.#discarded += bytes;
    this.#isBodyDue = !isLast;
    const isRead = isLast && this.#state === State.lingering && !this.isBlocked;
    if (isRead || this.#discarded > discardBytesMax) this.cutLater();
  }

  #onWritable(): boolean {
    this.isBlocked = false;
    this.unconfirmedBytes = 0;
    this.#isTrial = true;
    this.#isInCallback = true;
    try {
      if (this.#state === State.lingering) this.#linger?.refresh();
      else this.#peer?.writable();
      if (!this.isBlocked && this.#state !== State.over) this.#res.cork(corkNothing);
    } catch (error) {
      this.#handler.failed(error);
      this.cutLater();
    } finally {
      this.#isInCallback = false;
    }
    return true;
  }

  /** Called by uWS once the connection is gone. */
  aborted(): void {
    const wasOpen = this.isOpen;
    this.#state = State.over;
    clearTimeout(this.#linger);
    if (!wasOpen) return;
    try {
      this.#peer?.gone();
    } catch (error) {
      this.#handler.failed(error);
    }
  }

  answer(status: number, headers: readonly string[], body: Uint8Array): void {
    if (!this.isOpen) return;
    assert(!this.hasBegun, 'an exchange is answered once');
    assert(body.length <= corkBytesMax - headBytesMax, 'a larger body is streamed');
    this.#setHead(status, headers);
    corkOwner = this;
    corkData = body;
    this.#res.cork(corkAnswer);
    if (!this.#hasNoBody) this.#state = State.over;
    else this.#startLinger();
  }

  answerAndClose(status: number, headers: readonly string[], body: Uint8Array, due = false): void {
    this.closing = Closing.force;
    if (this.hasBegun) return;
    this.#isBodyDue = due;
    this.hasBegun = true; // what arrives of the body from here on is not for the peer
    setImmediate(() => {
      this.hasBegun = false;
      this.#guard(() => {
        if (!this.#isBodyDue || this.#isHead) return this.answer(status, headers, body);
        this.begin(status, headers); // its end leaves the connection to a linger
        this.write(body, 0, body.length);
        this.end();
      });
    });
  }

  begin(status: number, headers: readonly string[]): void {
    if (!this.isOpen) return;
    assert(!this.hasBegun, 'an exchange is answered once');
    this.#setHead(status, headers);
    this.#state = State.headPending;
  }

  write(data: Uint8Array, start: number, end: number): number {
    if (!this.isOpen) return end - start;
    let at = start;
    while (at < end && !this.isBlocked) {
      const burst = this.#state === State.headPending ? corkBytesMax - headBytesMax : corkBytesMax;
      const size = Math.min(end - at, this.#isTrial ? trialBytes : burst);
      corkOwner = this;
      corkData = data;
      corkStart = at;
      corkEnd = at + size;
      this.#res.cork(corkChunk);
      at = corkEnd;
      this.#isTrial = false;
      if (corkAccepted) continue;
      this.isBlocked = true;
      this.unconfirmedBytes = size;
    }
    return at - start;
  }

  end(): void {
    if (!this.isOpen) return;
    corkOwner = this;
    const isAnswer = this.#state === State.headPending && !this.#hasNoBody;
    this.#res.cork(corkEndOfStream);
    if (!this.#closesByHand || isAnswer) this.#state = State.over;
    else if (this.#saysClose || this.isBlocked) this.#startLinger();
    else this.#closeUnannounced();
  }

  cut(): void {
    if (this.#state === State.over) return;
    this.#res.close(); // calls aborted()
  }

  /** From inside a callback of uWS, which must return before the socket is freed. */
  cutLater(): void {
    setImmediate(() => this.#guard(() => this.cut()));
  }

  get #hasNoBody(): boolean {
    return this.#isHead || this.#status === 204 || this.#status === 304;
  }

  get #closesByHand(): boolean {
    return this.closing === Closing.force || this.#hasNoBody;
  }

  #setHead(status: number, headers: readonly string[]): void {
    this.hasBegun = true;
    this.#status = status;
    this.#headers = headers;
  }

  /** The response stays pending, so uWS drops the connection at the first further byte. */
  #startLinger(): void {
    this.#state = State.lingering;
    this.#linger = setTimeout(() => this.#guard(() => this.cut()), discardMs);
    this.#linger.unref();
  }

  /**
   * The head promised to keep the connection, so the client may send its next request at any moment
   * and would lose it: the end of the connection leaves with the end of the answer.
   */
  #closeUnannounced(): void {
    this.#state = State.lingering;
    if (this.#isInCallback) this.cutLater();
    else this.cut();
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#handler.failed(error);
    }
  }

  #writeHeadLines(): void {
    const res = this.#res;
    const headers = this.#headers;
    res.writeStatus(statusLine(this.#status));
    for (let i = 0; i + 1 < headers.length; i += 2) {
      res.writeHeader(headers[i] as string, headers[i + 1] as string);
    }
  }

  /** In a cork. */
  writeAnswer(): void {
    this.#writeHeadLines();
    if (this.#hasNoBody) {
      this.#saysClose = true;
      if (this.#isHead) this.#res.writeHeader('content-length', String(corkData.length));
      this.#res.writeHeader('connection', 'close\r\n'); // and the empty line that ends the head
      return;
    }
    if (this.closing === Closing.announce) this.#res.writeHeader('connection', 'close');
    this.#res.end(corkData, this.closing === Closing.force);
  }

  /** In a cork. */
  writeChunk(): void {
    if (this.#state === State.headPending) {
      this.#state = State.streaming;
      this.#writeHeadLines();
      this.#saysClose = this.closing !== Closing.keep;
      if (this.#saysClose) this.#res.writeHeader('connection', 'close');
    }
    corkAccepted = this.#res.write(corkData.subarray(corkStart, corkEnd));
  }

  /** In a cork. */
  writeEnd(): void {
    if (this.#state === State.headPending) {
      corkData = noBytes;
      this.writeAnswer();
    } else if (this.#closesByHand) {
      this.#res.writeHeader(lastChunkName, lastChunkValue);
    } else {
      this.#res.end();
    }
  }
}
