/**
 * One request and its answer on the node:http engine. Acceptor threads; never blocks.
 *
 * Bytes handed to write() are copied: Node sends them after the call. A streamed answer stays blocked
 * until the connection has taken its last byte, so whoever waits for that loses nothing.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import type { Bagged } from '../lib/bag.ts';
import { nowMs } from '../lib/clock.ts';
import { noBytes } from '../lib/no-bytes.ts';
import type { EdgeHead } from './edge-head.ts';
import {
  Closing,
  corkBytesMax,
  discardBytesMax,
  discardMs,
  type Exchange,
  type ExchangePeer,
  type ListenerHandler,
} from './listener.ts';

/** Headers, idle connections and each stretch of a body have this long. */
export const windowMs = 10_000;
const bodyBytesPerWindow = 16 * 1024 * 10;
/** A client that takes nothing for this long is dropped. */
const stalledMs = 20_000;
export class NodeExchange implements Exchange, Bagged {
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
  /** Its last answer has been given, which closes the connection; it may leave in a later turn. */
  #isRefused = false;
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

  /** The rest of the request is no HTTP. True when the answer on its way says so and closes. */
  losesRest(): boolean {
    if (this.#isDiscarding) this.#endDiscard(); // no end of the body will ever be seen
    return this.#isRefused;
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
    this.#isRefused = true;
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
