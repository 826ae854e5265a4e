/**
 * One client connection of a simulated replica: bytes to requests, one request at a time, in order.
 *
 * Runs on the replica's event loop and never blocks. It keeps reading while an answer is on its way,
 * for that is how the client's close is seen; what it may read ahead is bounded.
 * Invariant: onClientGone is called at most once per request, and never after done().
 */
import type { Socket } from 'node:net';
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import { type ParsedRequest, type ParseFailure, RequestParser } from './http-parser.ts';
import { CONTINUE } from './http-writer.ts';

/** What is being answered on a connection. */
export interface Exchange {
  onClientGone(): void;
  /** The socket accepts bytes again. */
  onDrain(): void;
}

export interface ConnectionOwner {
  readonly bodyBytesMax: number;
  readonly draining: boolean;
  onRequest(connection: Connection, request: ParsedRequest): void;
  /** A request that no handler sees; the answer to it, whole. */
  onBadRequest(failure: ParseFailure): string;
  onClosed(connection: Connection): void;
}

const READ_AHEAD_BYTES_MAX = 1024 * 1024;
const UNSENT_BYTES_MAX = 1024 * 1024;

export class Connection {
  /** Since when nothing was asked or answered (nowMs clock). */
  idleSince = nowMs();
  /** On the control port: counted apart, and kept while the replica drains. */
  readonly isControl: boolean;
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #parser: RequestParser;
  #exchange: Exchange | undefined;
  #reading = false;
  #ending = false;

  constructor(socket: Socket, owner: ConnectionOwner, isControl: boolean) {
    this.isControl = isControl;
    this.#socket = socket;
    this.#owner = owner;
    this.#parser = new RequestParser(owner.bodyBytesMax);
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#exchange?.onDrain());
    socket.on('end', () => this.#clientGone());
    // 'close' follows and does the work; an unheard 'error' would end the process.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#clientGone();
      owner.onClosed(this);
    });
  }

  get idle(): boolean {
    return this.#exchange === undefined;
  }

  /** Whether all is sent and only the peer's close is missing. */
  get lingering(): boolean {
    return this.#ending && this.#socket.writableFinished;
  }

  /** Whether the peer still has to read so much that more should wait. */
  get congested(): boolean {
    return this.#socket.writableLength > UNSENT_BYTES_MAX;
  }

  /** Takes over the answer to the current request; it ends with done(), finish() or reset(). */
  begin(exchange: Exchange): void {
    assert(this.#exchange === undefined, 'one exchange at a time');
    this.#exchange = exchange;
  }

  write(bytes: string): void {
    this.#socket.write(bytes, 'latin1');
  }

  /** The answer is complete. */
  done(keepAlive: boolean): void {
    this.#exchange = undefined;
    this.idleSince = nowMs();
    if (!keepAlive || (this.#owner.draining && !this.isControl)) {
      this.finish();
      return;
    }
    if (this.#socket.isPaused()) this.#socket.resume();
    if (!this.#reading) this.#read();
  }

  /** Sends FIN behind what was written. What the client still sends is read and dropped. */
  finish(): void {
    this.#exchange = undefined;
    this.idleSince = nowMs();
    if (this.#ending) return;
    this.#ending = true;
    this.#socket.end();
  }

  reset(): void {
    this.#exchange = undefined;
    this.#ending = true;
    this.#socket.resetAndDestroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #onData(chunk: Buffer): void {
    if (this.#ending) return;
    this.#parser.feed(chunk);
    this.idleSince = nowMs();
    if (this.#exchange === undefined) this.#read();
    else if (this.#parser.pendingBytes > READ_AHEAD_BYTES_MAX) this.#socket.pause();
  }

  #read(): void {
    this.#reading = true;
    while (this.#exchange === undefined && !this.#ending) {
      const request = this.#parser.take();
      if (request !== undefined) {
        this.#owner.onRequest(this, request);
        continue;
      }
      if (this.#parser.failure !== undefined) {
        this.write(this.#owner.onBadRequest(this.#parser.failure));
        this.finish();
      } else if (this.#parser.awaitsContinue) {
        this.write(CONTINUE);
      }
      break;
    }
    this.#reading = false;
  }

  #clientGone(): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.#ending = true;
    exchange?.onClientGone();
    this.#socket.destroy();
  }
}
