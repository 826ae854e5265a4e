/**
 * The node:http engine: strict parser, always available, twin of the uWS edge. Acceptor threads.
 *
 * The same rules and time limits as listener-uws.ts: one request at a time on a connection (a second
 * one drops it), refusals close, header limit 16 KiB, 10 s for headers and idle connections, bodies
 * must keep an average of 16 KiB/s per 10 s, a client that stops reading is dropped after 20 s.
 * Bytes handed to write() are copied: Node sends them after the call.
 */
import { readFileSync } from 'node:fs';
import http, { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorBody } from '../errors/bodies.ts';
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { Bag, type Bagged } from '../lib/bag.ts';
import { nowMs } from '../lib/clock.ts';
import { ListenError } from '../lib/listen-error.ts';
import { DescriptorWatch } from './descriptors.ts';
import { EdgeHead } from './edge-head.ts';
import {
  Closing,
  corkBytesMax,
  discardBytesMax,
  discardMs,
  type Exchange,
  type ExchangePeer,
  type Listener,
  type ListenerHandler,
  type ListenerOptions,
} from './listener.ts';

const headerBytesMax = 16 * 1024;
const windowMs = 10_000;
const bodyBytesPerWindow = 16 * 1024 * 10;
/** A client that takes nothing for this long is dropped. */
const stalledMs = 20_000;
const sweepMs = 1000;

export async function listenNode(
  options: ListenerOptions,
  handler: ListenerHandler,
): Promise<Listener> {
  const listener = new NodeListener(options, handler);
  await listener.listen(options);
  return listener;
}

class NodeListener implements Listener {
  readonly #server: http.Server;
  readonly #handler: ListenerHandler;
  readonly #head = new EdgeHead();
  /** The exchange in progress on each connection. */
  readonly #current = new WeakMap<Duplex, NodeExchange>();
  readonly #open = new Bag<NodeExchange>();
  readonly #descriptors = new DescriptorWatch();
  readonly #sockets = new Set<Duplex>();
  /** Connections whose last answer is on its way: nothing behind it is a request. */
  readonly #closing = new WeakSet<Duplex>();
  readonly #sweep: NodeJS.Timeout;
  port = 0;

  constructor({ tls, maxConnections }: ListenerOptions, handler: ListenerHandler) {
    this.#handler = handler;
    const settings = {
      insecureHTTPParser: false,
      requireHostHeader: false, // Node's own answer would leave the connection open to a next request
      maxHeaderSize: headerBytesMax,
      headersTimeout: windowMs,
      keepAliveTimeout: windowMs,
      requestTimeout: 0, // bodies have their own clock below
      connectionsCheckingInterval: sweepMs,
      noDelay: true,
    };
    this.#server =
      tls === null
        ? http.createServer(settings)
        : https.createServer({
            ...settings,
            cert: readFileSync(tls.cert),
            key: readFileSync(tls.key),
            ...(tls.ca === undefined
              ? {}
              : { ca: readFileSync(tls.ca), requestCert: true, rejectUnauthorized: true }),
            ...(tls.passphrase === undefined ? {} : { passphrase: tls.passphrase }),
          });
    this.#server.maxConnections = maxConnections;
    this.#server.on('connection', (socket) => {
      if (this.#descriptors.isShort()) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('request', (req, res) => this.#onRequest(req, res, false));
    this.#server.on('checkContinue', (req, res) => this.#onRequest(req, res, true));
    // An expectation other than 100-continue is refused by the edge rules like any other header.
    this.#server.on('checkExpectation', (req, res) => this.#onRequest(req, res, false));
    this.#server.on('clientError', (error, socket) => this.#onClientError(error, socket));
    this.#sweep = setInterval(() => this.#dropSlow(), sweepMs);
  }

  get connections(): number {
    return this.#sockets.size;
  }

  listen({ host, port }: ListenerOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const refuse = ({ code }: NodeJS.ErrnoException): void =>
        reject(new ListenError('listen', host, port, code));
      this.#server.once('error', refuse);
      this.#server.listen({ host, port, reusePort: true, backlog: 511 }, () => {
        this.#server.off('error', refuse);
        this.#server.on('error', (error) => this.#handler.failed(error));
        this.port = (this.#server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  close(): Promise<void> {
    clearInterval(this.#sweep);
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  #onRequest(req: IncomingMessage, res: ServerResponse, awaitsContinue: boolean): void {
    const { socket } = req;
    if (this.#current.has(socket) || this.#closing.has(socket)) {
      socket.destroy(); // a second request before the answer to the first, or behind the last
      return;
    }
    const exchange = new NodeExchange(req, res, this.#handler);
    this.#current.set(socket, exchange);
    this.#open.add(exchange);
    res.on('close', () => {
      this.#current.delete(socket);
      this.#open.remove(exchange);
      if (exchange.closing !== Closing.keep) this.#closing.add(socket);
      exchange.closed();
    });
    res.on('drain', () => exchange.drained());
    res.on('finish', () => exchange.finished());
    req.on('error', () => {}); // an aborted request; the close of the response says so too
    res.on('error', () => {});
    try {
      const head = this.#head;
      head.reset(req.method ?? '', req.url ?? '');
      const { rawHeaders } = req;
      for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
        head.add((rawHeaders[i] as string).toLowerCase(), rawHeaders[i + 1] as string);
      }
      exchange.open(head, awaitsContinue);
    } catch (error) {
      this.#handler.failed(error);
      exchange.cut();
    }
  }

  #onClientError(error: Error & { code?: string }, socket: Duplex): void {
    const exchange = this.#current.get(socket);
    if (!socket.writable || exchange?.hasBegun === true) {
      socket.destroy();
      return;
    }
    const entry = clientErrorEntry(error.code);
    const body = errorBody(entry);
    socket.end(
      `HTTP/1.1 ${entry.status} ${STATUS_CODES[entry.status]}\r\nconnection: close\r\n` +
        `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n` +
        Buffer.from(body).toString('latin1'),
      'latin1',
    );
    // The answer has left or never will: what else the client sends is not read.
    setImmediate(() => socket.destroy());
  }

  #dropSlow(): void {
    const now = nowMs();
    this.#open.visitAll((exchange) => {
      if (exchange.isTooSlow(now)) exchange.cut();
    });
  }
}

function clientErrorEntry(code: string | undefined): ErrorEntry {
  if (code === 'HPE_HEADER_OVERFLOW') return errors.HEADERS_TOO_LARGE;
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return errors.REQUEST_TIMEOUT;
  return errors.BAD_FRAMING;
}

class NodeExchange implements Exchange, Bagged {
  /** Among the open exchanges of the listener. */
  place = -1;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #handler: ListenerHandler;
  readonly #socket: Socket;
  #peer: ExchangePeer | undefined;
  #isOver = false;
  /** Complete, and its last bytes are not known to have left. */
  #isLeaving = false;
  #isReading = false;
  #readSince = nowMs();
  #readBytes = 0;
  #blockedSince = 0;
  /** Its answer has been given and what comes of its body is thrown away. */
  #isDiscarding = false;
  #discarded = 0;
  #discardTimer: NodeJS.Timeout | undefined;
  closing: Closing = Closing.keep;
  isBlocked = false;
  unconfirmedBytes = 0;
  hasBegun = false;

  constructor(req: IncomingMessage, res: ServerResponse, handler: ListenerHandler) {
    this.#req = req;
    this.#res = res;
    this.#socket = req.socket;
    this.#handler = handler;
  }

  get isOpen(): boolean {
    return !this.#isOver;
  }

  open(head: EdgeHead, awaitsContinue: boolean): void {
    const { httpVersion } = this.#req;
    if (head.mustClose || httpVersion !== '1.1') this.closing = Closing.force;
    // The parser also knows 0.9 and 2.0, which nobody may send here.
    const isKnown = httpVersion === '1.1' || httpVersion === '1.0';
    const error = isKnown ? head.check() : errors.BAD_FRAMING.number;
    if (error !== 0) {
      this.#handler.reject(error, head, this);
      return;
    }
    this.#peer = this.#handler.open(head, this);
    if (this.#peer === undefined && !this.#isDiscarding) return;
    if (awaitsContinue && !this.#isDiscarding) this.#res.writeContinue();
    this.#isReading = true;
    this.#req.on('data', (chunk: Buffer) => this.#onBody(chunk, false));
    this.#req.on('end', () => this.#onBody(noBytes, true));
  }

  #onBody(chunk: Uint8Array, isLast: boolean): void {
    this.#readBytes += chunk.length;
    if (isLast) this.#isReading = false;
    if (this.#isDiscarding) {
      this.#discarded += chunk.length;
      if (isLast || this.#discarded > discardBytesMax) this.#endDiscard();
      return;
    }
    if (this.#isOver || this.hasBegun) return; // refused while the body was arriving
    try {
      this.#peer?.body(chunk, isLast);
    } catch (error) {
      this.#handler.failed(error);
      this.cut();
    }
  }

  drained(): void {
    if (!this.#isOver) this.#continue();
  }

  /** The connection has taken the last byte. */
  finished(): void {
    if (!this.#isLeaving) return;
    this.#isLeaving = false;
    this.#continue();
  }

  #continue(): void {
    this.isBlocked = false;
    this.unconfirmedBytes = 0;
    try {
      this.#peer?.writable();
    } catch (error) {
      this.#handler.failed(error);
      this.cut();
    }
  }

  /** The response is complete or its connection is gone. */
  closed(): void {
    clearTimeout(this.#discardTimer);
    if (this.#isOver && !this.#isLeaving) return;
    this.#isOver = true;
    this.#isLeaving = false;
    try {
      this.#peer?.gone();
    } catch (error) {
      this.#handler.failed(error);
    }
  }

  isTooSlow(now: number): boolean {
    if (this.isBlocked || this.#isOver) {
      // The socket's own count: a response that has ended never says that it needs a drain.
      return this.#socket.writableLength > 0 && now - this.#blockedSince > stalledMs;
    }
    if (!this.#isReading || now - this.#readSince < windowMs) return false;
    const isSlow = this.#readBytes < bodyBytesPerWindow;
    this.#readSince = now;
    this.#readBytes = 0;
    return isSlow;
  }

  answer(status: number, headers: readonly string[], body: Uint8Array): void {
    if (this.#isOver) return;
    assert(!this.hasBegun, 'an exchange is answered once');
    this.#setHead(status, headers);
    if (status !== 204 && status !== 304) this.#res.setHeader('content-length', body.length);
    this.#isOver = true;
    this.#blockedSince = nowMs();
    if (!this.#isDiscarding) {
      this.#res.end(Buffer.from(body));
      return;
    }
    // Complete by its length; `end` would close the connection.
    this.#res.write(Buffer.from(body));
    this.#discardTimer = setTimeout(() => this.#endDiscard(), discardMs);
    this.#discardTimer.unref();
  }

  #endDiscard(): void {
    this.#isDiscarding = false;
    clearTimeout(this.#discardTimer);
    if (this.#isOver) this.#res.end(); // otherwise the answer is still to come, and ends by itself
  }

  answerAndClose(
    status: number,
    headers: readonly string[],
    body: Uint8Array,
    isBodyDue = false,
  ): void {
    this.#isDiscarding = isBodyDue && !this.hasBegun;
    this.closing = Closing.force;
    if (this.hasBegun) return;
    this.hasBegun = true; // what arrives of the body from here on is not for the peer
    setImmediate(() => {
      this.hasBegun = false;
      try {
        this.answer(status, headers, body);
      } catch (error) {
        this.#handler.failed(error);
        this.cut();
      }
    });
  }

  begin(status: number, headers: readonly string[]): void {
    if (this.#isOver) return;
    assert(!this.hasBegun, 'an exchange is answered once');
    this.#setHead(status, headers);
  }

  write(data: Uint8Array, start: number, end: number): number {
    if (this.#isOver) return end - start;
    let at = start;
    while (at < end && !this.isBlocked) {
      const size = Math.min(end - at, corkBytesMax);
      // A copy: the bytes lie in shared memory that is reused once this call returns.
      if (!this.#res.write(Buffer.from(data.subarray(at, at + size)))) {
        this.isBlocked = true;
        this.unconfirmedBytes = size;
        this.#blockedSince = nowMs();
      }
      at += size;
    }
    return at - start;
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isLeaving = true;
    this.isBlocked = true;
    this.#blockedSince = nowMs();
    // The head may have promised to keep the connection before it was known that it must close.
    if (this.closing === Closing.force) this.#res.end(() => this.#socket.end());
    else this.#res.end();
  }

  cut(): void {
    this.#socket.destroy();
  }

  #setHead(status: number, headers: readonly string[]): void {
    this.hasBegun = true;
    const res = this.#res;
    res.statusCode = status;
    for (let i = 0; i + 1 < headers.length; i += 2) {
      res.setHeader(headers[i] as string, headers[i + 1] as string);
    }
    if (this.closing !== Closing.keep) res.setHeader('connection', 'close');
  }
}

const noBytes = new Uint8Array(0);
