/**
 * The text a client has been given, as it stood inside the JSON strings of the events: escaped, so it
 * goes into the next body as it is. Forwarder threads, for models with `continuation`.
 *
 * What is added counts once it is confirmed. Past `bytesMax` nothing is kept and nothing can be
 * continued.
 */
import { Buffer } from 'node:buffer';
import { jsonText } from '../protocol/text.ts';

const bytesMin = 1024;
const backslash = 0x5c;
/** Escapes of one character, as one of U+3000, are this long at most. */
const escapeBytes = 6;

export class DeliveredText {
  readonly #bytesMax: number;
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  #confirmed = 0;
  #confirmedEndsInSpace = false;
  /** The last character so far is white space. */
  endsInSpace = false;
  isTooLong = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The confirmed text; valid until the next call. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#confirmed);
  }

  /** Adds the inside of the JSON string at [start, end), which is not empty. */
  add(source: Uint8Array, start: number, end: number): void {
    this.endsInSpace = endsInSpace(source, start, end);
    const length = this.#length + end - start - 2;
    if (length > this.#bytesMax) this.isTooLong = true;
    if (this.isTooLong) {
      this.#bytes = Buffer.alloc(0);
      this.#length = this.#confirmed = 0;
      return;
    }
    if (length > this.#bytes.length) {
      const size = Math.min(Math.max(2 * length, bytesMin), this.#bytesMax);
      const grown = Buffer.allocUnsafeSlow(size);
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(source.subarray(start + 1, end - 1), this.#length);
    this.#length = length;
  }

  confirm(): void {
    this.#confirmed = this.#length;
    this.#confirmedEndsInSpace = this.endsInSpace;
  }

  /** Forgets what was not confirmed. */
  withdraw(): void {
    this.#length = this.#confirmed;
    this.endsInSpace = this.#confirmedEndsInSpace;
  }

  /** The model thinks in its text: what it thinks is no part of an answer to go on with. */
  get isThinking(): boolean {
    const text = this.bytes.toString('latin1').replaceAll('\\u003c', '<');
    return text.lastIndexOf('<think>') > text.lastIndexOf('</think>');
  }
}

function endsInSpace(source: Uint8Array, start: number, end: number): boolean {
  const last = source[end - 2] as number;
  let isPlain = last > 0x20 && last < 0x7f;
  for (let p = end - 2; isPlain && p > start && p > end - 2 - escapeBytes; p--) {
    if (source[p] === backslash) isPlain = false;
  }
  return !isPlain && /\s$/.test(jsonText(source, start, end));
}
