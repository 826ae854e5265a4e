/**
 * The text a client has been given, as it stood inside the JSON strings of the events: escaped, so it
 * goes into the next body as it is. Forwarder threads, for models with `continuation`.
 *
 * What is added counts once it is confirmed. Past `bytesMax` nothing is kept and nothing can be
 * continued. White space at the end of the text of a chat waits: templates cut it off.
 */
import { Buffer } from 'node:buffer';
import { put } from '../protocol/byte-edits.ts';
import type { StreamChunk } from '../protocol/stream-chunk.ts';
import { jsonText } from '../protocol/text.ts';
import type { Delivered } from './delivered.ts';

/** From the pool of node: most answers end before they have outgrown it. */
const bytesMin = 1024;
const backslash = 0x5c;
/** Escapes of one character, as one of U+3000, are this long at most. */
const escapeBytes = 6;

export class DeliveredText implements Delivered {
  /** Nobody has said. */
  readonly came = -1;
  readonly promptTokens = -1;
  readonly #bytesMax: number;
  readonly #isChat: boolean;
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  #confirmed = 0;
  #confirmedEndsInSpace = false;
  /** The last character so far is white space. */
  #endsInSpace = false;
  #isTooLong = false;
  isWaiting = false;

  constructor(bytesMax: number, isChat: boolean) {
    this.#bytesMax = bytesMax;
    this.#isChat = isChat;
  }

  begin(): void {
    this.withdraw();
    this.isWaiting = false;
  }

  note(data: Uint8Array, { content }: StreamChunk, hasFinish: boolean): void {
    if (content.end - content.start > 2) this.#add(data, content.start, content.end);
    this.isWaiting = this.#isChat && this.#endsInSpace && !hasFinish;
  }

  confirm(): void {
    this.#confirmed = this.#length;
    this.#confirmedEndsInSpace = this.#endsInSpace;
  }

  withdraw(): void {
    this.#length = this.#confirmed;
    this.#endsInSpace = this.#confirmedEndsInSpace;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#confirmed);
  }

  get isEmpty(): boolean {
    return this.#confirmed === 0;
  }

  get canContinue(): boolean {
    return !this.#isTooLong && !this.#isThinking && !(this.#isChat && this.#endsInSpace);
  }

  /** The model thinks in its text: what it thinks is no part of an answer to go on with. */
  get #isThinking(): boolean {
    const text = this.bytes.toString('latin1').replaceAll('\\u003c', '<');
    return text.lastIndexOf('<think>') > text.lastIndexOf('</think>');
  }

  /** Adds the inside of the JSON string at [start, end), which is not empty. */
  #add(source: Uint8Array, start: number, end: number): void {
    this.#endsInSpace = endsInSpace(source, start, end);
    const length = this.#length + end - start - 2;
    if (length > this.#bytesMax) this.#isTooLong = true;
    if (this.#isTooLong) {
      this.#bytes = Buffer.alloc(0);
      this.#length = this.#confirmed = 0;
      return;
    }
    if (length > this.#bytes.length) {
      const size = Math.min(Math.max(2 * length, bytesMin), this.#bytesMax);
      const grown = size === bytesMin ? Buffer.allocUnsafe(size) : Buffer.allocUnsafeSlow(size);
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#length = put(this.#bytes, this.#length, source, start + 1, end - 1);
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
