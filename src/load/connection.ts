/**
 * One keep-alive connection of the load generator on a raw `net.Socket`, one request at a time.
 * All connections of a thread read into one shared buffer, so a read allocates nothing. A closed
 * connection opens again when it is next used; the time that takes counts for that request.
 *
 * Invariant: every `send` is followed by exactly one `onFinished`, however the exchange ends.
 */
import { connect, type Socket } from 'node:net';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { Exchange, type Expectation, type OnTokenGap } from './exchange.ts';
import { Outcome } from './outcome.ts';
import type { RequestBody } from './request-template.ts';

export interface ConnectionTarget {
  readonly host: string;
  readonly port: number;
}

export type OnFinished = (connection: Connection, outcome: Outcome, atUs: number) => void;

/** Replicas and proxies close idle connections after 5 s and more; an older one is not reused. */
const idleUsMax = 4_000_000;

/** A target that swallows connects must not hold up the start; its requests then time out. */
const warmMsMax = 3000;

const sharedRead = Buffer.allocUnsafe(64 * 1024);

export class Connection {
  readonly exchange: Exchange;
  bytesRead = 0;
  /** Why the socket failed to open, such as ECONNREFUSED. */
  connectErrno = '';

  readonly #target: ConnectionTarget;
  readonly #onFinished: OnFinished;
  #socket: Socket | undefined;
  #open = false;
  #broken = false;
  #busy = false;
  #pending: RequestBody | undefined;
  #idleSinceUs = 0;

  constructor(
    target: ConnectionTarget,
    expect: Expectation,
    onTokenGap: OnTokenGap,
    onFinished: OnFinished,
  ) {
    this.#target = target;
    this.#onFinished = onFinished;
    this.exchange = new Exchange(expect, onTokenGap);
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** Opens ahead of the first request. Resolves when the attempt is over, good or bad. */
  warm(): Promise<void> {
    const socket = this.#connect();
    return new Promise((resolve) => {
      const limit = setTimeout(done, warmMsMax);
      function done(): void {
        clearTimeout(limit);
        resolve();
      }
      socket.once('connect', done);
      socket.once('close', done);
    });
  }

  /** Sends the request that `exchange.begin` described. */
  send(body: RequestBody): void {
    assert(!this.#busy, 'one request at a time');
    this.#busy = true;
    if (this.#open && nowUs() - this.#idleSinceUs > idleUsMax) this.#drop();
    if (this.#open) {
      this.#write(body);
      return;
    }
    this.#pending = body;
    if (this.#socket === undefined) this.#connect();
  }

  /** Ends the exchange from our side: too late, or the run is over. */
  abandon(outcome: Outcome): void {
    this.#drop();
    this.#finish(outcome, nowUs());
  }

  close(): void {
    assert(!this.#busy, 'a busy connection is abandoned, not closed');
    this.#drop();
  }

  #write(body: RequestBody): void {
    const socket = this.#socket as Socket;
    this.exchange.sentUs = nowUs();
    const head = body.beforeId + this.exchange.id + body.afterId;
    if (body.large === undefined) {
      socket.write(head, 'latin1');
      return;
    }
    socket.cork();
    socket.write(head, 'latin1');
    socket.write(body.large);
    socket.uncork();
  }

  #connect(): Socket {
    const socket = connect({
      host: this.#target.host,
      port: this.#target.port,
      noDelay: true,
      onread: {
        buffer: sharedRead,
        callback: (length: number) => {
          if (socket === this.#socket) this.#onRead(length);
          return true;
        },
      },
    });
    this.#socket = socket;
    this.#open = false;
    this.#broken = false;
    socket.on('connect', () => this.#onConnect(socket));
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (socket !== this.#socket) return;
      this.#broken = true;
      if (!this.#open) this.connectErrno = code ?? '';
    });
    socket.on('close', () => this.#onClose(socket));
    return socket;
  }

  #onConnect(socket: Socket): void {
    if (socket !== this.#socket) return;
    this.#open = true;
    this.#idleSinceUs = nowUs();
    if (this.#pending === undefined) return;
    const body = this.#pending;
    this.#pending = undefined;
    this.#write(body);
  }

  #onRead(length: number): void {
    this.bytesRead += length;
    if (!this.#busy) {
      // Bytes without a request: whatever they are, the connection cannot be trusted any more.
      this.#drop();
      return;
    }
    const atUs = nowUs();
    if (!this.exchange.receive(sharedRead, length, atUs)) return;
    const { parser } = this.exchange;
    if (!parser.complete || !parser.keepAlive) this.#drop();
    this.#idleSinceUs = atUs;
    this.#finish(this.exchange.verdict(), atUs);
  }

  #onClose(socket: Socket): void {
    if (socket !== this.#socket) return;
    const opened = this.#open;
    const broken = this.#broken;
    this.#drop();
    if (!this.#busy) return;
    if (!opened) {
      this.#finish(Outcome.connect, nowUs());
      return;
    }
    // A clean end completes an answer that is delimited by it; a broken connection never does.
    if (!broken) this.exchange.parser.end();
    this.#finish(this.exchange.verdict(), nowUs());
  }

  #drop(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#open = false;
    this.#pending = undefined;
  }

  #finish(outcome: Outcome, atUs: number): void {
    assert(this.#busy, 'an exchange ends once');
    this.#busy = false;
    this.#pending = undefined;
    this.#onFinished(this, outcome, atUs);
  }
}
