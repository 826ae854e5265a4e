/**
 * The answer bytes of one stream between ring and connection. Acceptor threads; never waits.
 *
 * What the connection does not take at once is copied and kept, in order. `takenBytes` is the credit:
 * it counts what the connection is known to have taken, wraps, and never counts a byte twice.
 */
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import type { Exchange } from './listener.ts';

/**
 * uWebSockets.js tells only at the next write that the last one did not leave, so the last bytes of an
 * answer go one at a time: once one is taken, so is all before it.
 */
const askingBytes = 2;
/** Sockets take as much even when nobody reads, so what is shorter need not ask. */
const surelyTakenBytes = 64 * 1024;

export class Outbox {
  readonly #exchange: Exchange;
  readonly #kept: Uint8Array[] = [];
  /** First byte of the oldest kept piece that is still to be sent. */
  #start = 0;
  #handedBytes = 0;
  /** The last bytes handed over were aside: it is they that may not have been taken. */
  #wasAside = false;
  /** When the connection refused what was written last; 0: it did not. */
  #blockedMs = 0;
  keptBytes = 0;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** For how long the connection has taken nothing although there is something. */
  get stalledMs(): number {
    return this.#blockedMs === 0 ? 0 : nowMs() - this.#blockedMs;
  }

  get takenBytes(): number {
    return (this.#handedBytes - (this.#wasAside ? 0 : this.#exchange.unconfirmedBytes)) | 0;
  }

  /** Sends a few bytes that are no part of the answer and of no credit. Only while nothing is kept. */
  sendAside(data: Uint8Array): void {
    assert(this.keptBytes === 0 && !this.#exchange.isBlocked);
    this.#wasAside = true;
    const taken = this.#exchange.write(data, 0, data.length);
    assert(taken === data.length, 'one burst takes it whole');
  }

  /** Counts bytes of the answer that the client is not given. */
  skip(bytes: number): void {
    this.#handedBytes = (this.#handedBytes + bytes) | 0;
  }

  /** Sends data[start, end) behind what is kept; the rest is kept. `isLast`: nothing follows. */
  send(data: Uint8Array, start: number, end: number, isLast = false): void {
    const taken = this.keptBytes === 0 ? this.#write(data, start, end, isLast) : 0;
    if (start + taken === end) return;
    this.#kept.push(data.slice(start + taken, end));
    this.keptBytes += end - start - taken;
  }

  /** Continues after the connection has become writable. `isLast`: nothing follows what is kept. */
  flush(isLast = false): void {
    if (!this.#exchange.isBlocked) this.#blockedMs = 0;
    while (this.keptBytes > 0) {
      const piece = this.#kept[0] as Uint8Array;
      const isEnd = isLast && this.#kept.length === 1;
      const taken = this.#write(piece, this.#start, piece.length, isEnd);
      this.keptBytes -= taken;
      this.#start += taken;
      if (this.#start < piece.length) return;
      this.#kept.shift();
      this.#start = 0;
    }
  }

  #write(data: Uint8Array, start: number, end: number, isLast: boolean): number {
    const exchange = this.#exchange;
    const asks = isLast && (this.#handedBytes >>> 0) + end - start >= surelyTakenBytes;
    const bulkEnd = asks ? Math.max(start, end - askingBytes) : end;
    let at = start + exchange.write(data, start, bulkEnd);
    while (at >= bulkEnd && at < end && !exchange.isBlocked) at += exchange.write(data, at, at + 1);
    if (at > start) this.#wasAside = false;
    this.#blockedMs = exchange.isBlocked ? nowMs() : 0;
    this.#handedBytes = (this.#handedBytes + at - start) | 0;
    return at - start;
  }

  /** The client is gone: nothing is kept for it. */
  clear(): void {
    this.#kept.length = 0;
    this.keptBytes = 0;
    this.#start = 0;
  }
}
