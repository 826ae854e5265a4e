/** A stream of a raw replica as large as a test wants, written as its socket takes it. */
import { createHash, type Hash } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  chunk,
  doneEvent,
  finishEvent,
  lastChunk,
  type RawRequest,
  sseHead,
  tokenEvent,
} from './raw-replica.ts';

export class Flood {
  written = 0;
  readonly #hash: Hash = createHash('sha256');
  readonly #socket: Socket;
  readonly #limit: number;
  readonly #pump = (): void => this.#write();

  constructor({ connection: { socket } }: RawRequest, limit: number) {
    this.#socket = socket;
    this.#limit = limit;
    socket.write(sseHead);
    socket.on('drain', this.#pump);
    this.#write();
  }

  /** The last byte has been given to the socket. */
  get isWhole(): boolean {
    return this.written > this.#limit;
  }

  /** Of the body, without its framing. */
  get sha(): string {
    return this.#hash.copy().digest('hex');
  }

  #write(): void {
    let isTaken = true;
    while (isTaken && this.written < this.#limit) {
      isTaken = this.#send(tokenEvent(`${this.written}:`.padEnd(4000, 'x')));
    }
    if (this.written < this.#limit) return;
    this.#socket.off('drain', this.#pump);
    this.#send(finishEvent + doneEvent);
    this.#socket.write(lastChunk);
  }

  #send(text: string): boolean {
    this.#hash.update(text);
    this.written += text.length;
    return this.#socket.write(chunk(text));
  }
}

const repeated = Buffer.concat(
  Array.from({ length: 64 }, () => chunk(tokenEvent('x'.repeat(4000)))),
);

/** The same events again and again, without an end: many at once cost the test's own thread little. */
export class Torrent {
  written = 0;
  readonly #socket: Socket;

  constructor({ connection: { socket } }: RawRequest) {
    this.#socket = socket;
    socket.write(sseHead);
    socket.on('drain', () => this.#write());
    this.#write();
  }

  #write(): void {
    let isTaken = true;
    while (isTaken) {
      this.written += repeated.length;
      isTaken = this.#socket.write(repeated);
    }
  }
}
