/**
 * The token ids of a prompt and of what a client has been given behind it, as the replicas named them.
 * Forwarder threads, for models with `continuation: token_ids`.
 *
 * What is added counts once it is confirmed. Past `bytesMax`, or once a token came without its id,
 * nothing is kept and nothing can be continued. Ids whose text has not come (a character in several
 * tokens) wait with the events that brought them, and are not confirmed before it comes or the stream
 * ends, so that another replica generates them again.
 */
import { Buffer } from 'node:buffer';
import { openBracket } from '../protocol/json-skip.ts';
import type { Member, StreamChunk } from '../protocol/stream-chunk.ts';
import type { Delivered } from './delivered.ts';

const idsMin = 256;
const idMax = 2 ** 31 - 1;
const bytesPerId = 4;
const space = 0x20;
const comma = 0x2c;
const closeBracket = 0x5d;

export class DeliveredIds implements Delivered {
  readonly #idsMax: number;
  #ids = new Int32Array(0);
  #promptLength = 0;
  #length = 0;
  #confirmed = 0;
  /** Ids there were when the attempt began. */
  #begun = 0;
  #isLost = false;
  isWaiting = false;

  constructor(bytesMax: number) {
    this.#idsMax = Math.floor(bytesMax / bytesPerId);
  }

  begin(): void {
    this.withdraw();
    this.#begun = this.#length;
    this.isWaiting = false;
  }

  note(data: Uint8Array, chunk: StreamChunk, hasFinish: boolean): void {
    const { promptIds, choicePromptIds, tokenIds } = chunk;
    const hasText = chunk.content.end - chunk.content.start > 2;
    if (this.#promptLength === 0) {
      this.#add(data, promptIds);
      if (this.#length === 0) this.#add(data, choicePromptIds);
      this.#promptLength = this.#begun = this.#length;
    }
    const before = this.#length;
    this.#add(data, tokenIds);
    const hasIds = this.#length > before;
    if ((hasText || chunk.reasons) && !hasIds) this.#lose();
    // There is nothing to put the ids behind.
    if (hasIds && this.#promptLength === 0) this.#lose();
    if (hasText || chunk.reasons || hasFinish) this.isWaiting = false;
    else if (hasIds) this.isWaiting = true;
  }

  confirm(): void {
    this.#confirmed = this.#length;
  }

  withdraw(): void {
    this.#length = this.#confirmed;
    if (this.#length < this.#promptLength) this.#promptLength = 0;
  }

  /** Tokens of the current attempt; -1: some of them are not known. */
  get came(): number {
    return this.#isLost ? -1 : this.#length - this.#begun;
  }

  get promptTokens(): number {
    return this.#promptLength > 0 ? this.#promptLength : -1;
  }

  get canContinue(): boolean {
    return !this.#isLost;
  }

  get isEmpty(): boolean {
    return this.#confirmed <= this.#promptLength;
  }

  /** The prompt and the confirmed tokens behind it, as a JSON list. */
  get bytes(): Buffer {
    return Buffer.from(`[${this.#ids.subarray(0, this.#confirmed).join()}]`);
  }

  /** Adds the ids of a JSON value that is a list. */
  #add(data: Uint8Array, { start, end }: Member): void {
    if (this.#isLost || end === 0 || data[start] !== openBracket) return;
    let id = -1;
    for (let p = start + 1; p < end; p++) {
      const c = data[p] as number;
      if (c >= 0x30 && c <= 0x39) {
        id = 10 * Math.max(id, 0) + (c - 0x30);
        if (id > idMax) this.#lose();
      } else if (c === comma || c === closeBracket) {
        if (id >= 0) this.#push(id);
        id = -1;
      } else if (c > space) this.#lose();
      if (this.#isLost) return;
    }
  }

  #push(id: number): void {
    if (this.#length >= this.#idsMax) {
      this.#lose();
      return;
    }
    if (this.#length === this.#ids.length) {
      const size = Math.min(Math.max(2 * this.#length, idsMin), this.#idsMax);
      const grown = new Int32Array(size);
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids[this.#length++] = id;
  }

  #lose(): void {
    this.#isLost = true;
    this.#ids = new Int32Array(0);
    this.#length = this.#confirmed = this.#begun = this.#promptLength = 0;
  }
}
