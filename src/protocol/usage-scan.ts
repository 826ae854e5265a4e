/**
 * The usage of a JSON answer that is too large to be held, followed while it passes. Pure; forwarder threads.
 *
 * Strings and brackets alone are followed, at any split of the chunks, in a state of fixed size: that is enough
 * to know which `usage` is a member of the outermost object, wherever it stands and whatever follows it. Its
 * value is kept and read by the observer; of several the last that has closed counts. Whether the rest is JSON
 * is not asked. Long strings are crossed by a native search for their quote.
 */
import { Buffer } from 'node:buffer';
import { type CompletionObserver, Observed, type Usage } from './completion-observer.ts';
import { closeBrace, closeBracket, comma, openBrace, openBracket, quote } from './json-skip.ts';
import type { AnswerShape } from './routes.ts';

/** Usage has some 300 bytes; of a larger one than this nothing is known. */
const valueBytesMax = 4096;
const backslash = 0x5c;
const name = Buffer.from('usage');
const head = Buffer.from('{"usage":');
/** Strings up to this length are crossed by the byte. */
const nearBytes = 24;

/** 1: outside of strings the byte says something. */
const marks = new Uint8Array(256);
for (const byte of [quote, comma, openBrace, openBracket, closeBrace, closeBracket])
  marks[byte] = 1;

export class UsageScan {
  /** `{"usage":` and the value. */
  readonly #value = Buffer.alloc(head.length + valueBytesMax + 1);
  #length = head.length;
  /** A value has closed, and is all there. */
  #isThere = false;
  /** The value is passing. */
  #isValue = false;
  #depth = 0;
  #isObject = false;
  #isInString = false;
  /** A backslash came last. */
  #isEscaped = false;
  /** What comes next in the outermost object is a key. */
  #awaitsKey = false;
  /** Bytes of the key at hand that are those of the name; below 0: it is another one, or none. */
  #matched = -1;
  /** The last key was the name. */
  #isNamed = false;

  constructor() {
    this.#value.set(head);
  }

  push(chunk: Uint8Array): void {
    let p = 0;
    while (p < chunk.length) {
      const from = p;
      const wasValue = this.#isValue;
      p = this.#isInString ? this.#crossString(chunk, p) : this.#crossMark(chunk, p);
      // It begins with its brace, behind the colon.
      if (this.#isValue) this.#keep(chunk, wasValue ? from : p - 1, p);
    }
  }

  /** What the answer so far says was used; undefined when it has not said. */
  read(observer: CompletionObserver, shape: AnswerShape): Usage | undefined {
    if (!this.#isThere) return undefined;
    this.#value[this.#length] = closeBrace;
    observer.reset(shape, 1);
    const flags = observer.onBody(this.#value, 0, this.#length + 1);
    return (flags & Observed.malformed) === 0 ? { ...observer.usage } : undefined;
  }

  /** To behind the next byte that says something, or to the end of the chunk. */
  #crossMark(chunk: Uint8Array, p: number): number {
    const from = p;
    while (p < chunk.length && marks[chunk[p] as number] === 0) p++;
    switch (chunk[p]) {
      case quote:
        this.#isInString = true;
        this.#matched = this.#awaitsKey ? 0 : -1;
        this.#awaitsKey = false;
        break;
      case openBrace:
      case openBracket:
        this.#open(chunk[p] === openBrace);
        break;
      case closeBrace:
      case closeBracket:
        if (--this.#depth === 1 && this.#isValue) {
          this.#keep(chunk, from, p + 1);
          this.#isValue = false;
          this.#isThere = this.#length - head.length <= valueBytesMax;
        }
        break;
      case comma:
        if (this.#depth === 1) {
          this.#awaitsKey = this.#isObject;
          this.#isNamed = false;
        }
        break;
    }
    return Math.min(p + 1, chunk.length);
  }

  #open(isObject: boolean): void {
    this.#depth++;
    if (this.#depth === 1) this.#isObject = this.#awaitsKey = isObject;
    else if (this.#depth === 2 && this.#isNamed && isObject) {
      this.#isValue = true;
      this.#isThere = false;
      this.#length = head.length;
    }
  }

  /** Through the string, or to the end of the chunk. */
  #crossString(chunk: Uint8Array, p: number): number {
    if (this.#isEscaped) {
      this.#isEscaped = false;
      this.#matched = -1;
      return p + 1;
    }
    const near = Math.min(p + nearBytes, chunk.length);
    for (; p < near; p++) {
      const byte = chunk[p] as number;
      if (byte === quote) return this.#closeString(p);
      if (byte === backslash) {
        this.#isEscaped = true;
        return p + 1;
      }
      if (this.#matched >= 0) this.#matched = byte === name[this.#matched] ? this.#matched + 1 : -1;
    }
    if (p === chunk.length) return p;
    this.#matched = -1; // longer than the name
    const found = chunk.indexOf(quote, p);
    const end = found < 0 ? chunk.length : found;
    let escapes = 0;
    while (end - escapes > p && chunk[end - escapes - 1] === backslash) escapes++;
    const isEscaped = escapes % 2 === 1;
    if (found >= 0 && !isEscaped) return this.#closeString(end);
    this.#isEscaped = isEscaped;
    return end;
  }

  #closeString(p: number): number {
    if (this.#matched >= 0) this.#isNamed = this.#matched === name.length;
    this.#isInString = false;
    return p + 1;
  }

  #keep(chunk: Uint8Array, start: number, end: number): void {
    const room = head.length + valueBytesMax - this.#length;
    for (let p = start; p < Math.min(end, start + room); p++) {
      this.#value[this.#length++] = chunk[p] as number;
    }
    if (end - start > room) this.#length = head.length + valueBytesMax + 1; // too long to be known
  }
}
