/**
 * The answer bytes of one stream between ring and connection. Acceptor threads; never waits.
 *
 * What the connection does not take at once is copied and kept, in order. `takenBytes` is the credit:
 * it counts what the connection is known to have taken, wraps, and never counts a byte twice.
 */
import type { Exchange } from './listener.ts';

export class Outbox {
  readonly #exchange: Exchange;
  readonly #kept: Uint8Array[] = [];
  /** First byte of the oldest kept piece that is still to be sent. */
  #start = 0;
  #handedBytes = 0;
  keptBytes = 0;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  get takenBytes(): number {
    return (this.#handedBytes - this.#exchange.unconfirmedBytes) | 0;
  }

  /** Sends data[start, end) behind what is kept; the rest is kept. */
  send(data: Uint8Array, start: number, end: number): void {
    const taken = this.keptBytes === 0 ? this.#exchange.write(data, start, end) : 0;
    this.#handedBytes = (this.#handedBytes + taken) | 0;
    if (start + taken === end) return;
    this.#kept.push(data.slice(start + taken, end));
    this.keptBytes += end - start - taken;
  }

  /** Continues after the connection has become writable. */
  flush(): void {
    while (this.keptBytes > 0) {
      const piece = this.#kept[0] as Uint8Array;
      const taken = this.#exchange.write(piece, this.#start, piece.length);
      this.#handedBytes = (this.#handedBytes + taken) | 0;
      this.keptBytes -= taken;
      this.#start += taken;
      if (this.#start < piece.length) return;
      this.#kept.shift();
      this.#start = 0;
    }
  }

  /** The client is gone: nothing is kept for it. */
  clear(): void {
    this.#kept.length = 0;
    this.keptBytes = 0;
    this.#start = 0;
  }
}
