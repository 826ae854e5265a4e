/**
 * The node:http engine: strict parser, always available, twin of the uWS edge. Acceptor threads.
 *
 * The same rules and time limits as listener-uws.ts: one request at a time on a connection (a second
 * one drops it), refusals close, header limit 16 KiB, 10 s for headers and idle connections, bodies
 * must keep an average of 16 KiB/s per 10 s, a client that stops reading is dropped after 20 s.
 */
import { readFileSync } from 'node:fs';
import http, { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import https from 'node:https';
import { type AddressInfo, Server as NetServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorBody } from '../errors/bodies.ts';
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import { Bag } from '../lib/bag.ts';
import { nowMs } from '../lib/clock.ts';
import { ListenError } from '../lib/listen-error.ts';
import { quietTurn } from '../lib/quiet-turn.ts';
import { DescriptorWatch } from './descriptors.ts';
import { EdgeHead } from './edge-head.ts';
import { Closing, type Listener, type ListenerHandler, type ListenerOptions } from './listener.ts';
import { NodeExchange, windowMs } from './node-exchange.ts';

const headerBytesMax = 16 * 1024;
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
  #accepted = 0;
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
      this.#accepted++;
      if (this.#descriptors.isShort() || !this.#handler.takesConnection()) {
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

  async stopListening(): Promise<void> {
    await quietTurn(() => this.#accepted);
    // Not that of http.Server: it would close idle connections, whose next request may be on its way.
    NetServer.prototype.close.call(this.#server);
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
    // The answer on its way closes the connection, and this request with it.
    if (this.#current.get(socket)?.losesRest() === true) return;
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
    // The parser may stumble over a body whose head was refused a moment ago.
    if (exchange?.losesRest() === true) return;
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
