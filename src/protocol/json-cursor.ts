/**
 * A cursor that walks chosen members of one JSON value and validates everything it passes.
 * Pure; any thread; never blocks; made once and reset for each value.
 *
 * The walk ends when a method returns false: either the container is finished or `failure` holds
 * the reason (negative, of json-skip.ts). A value that has been walked to `finished()` is valid
 * JSON as a whole. `keyStart`/`keyEnd` and `valueStart`/`valueEnd` are positions in `bytes`.
 */
import { assert } from '../lib/assert.ts';
import {
  allowKeys,
  closeBrace,
  closeBracket,
  comma,
  depthLimit,
  malformed,
  openBrace,
  openBracket,
  quote,
  skipKey,
  skipSpace,
  skipString,
  skipValue,
  tooDeep,
} from './json-skip.ts';

const empty = new Uint8Array(0);

export class JsonCursor {
  bytes: Uint8Array = empty;
  position = 0;
  failure = 0;
  keyStart = 0;
  keyEnd = 0;
  valueStart = 0;
  valueEnd = 0;
  #end = 0;
  #first = false;
  #depth = 0;
  #depthMax = 0;

  /** Starts at `start`; `depthMax` counts all levels, the outermost container included. */
  reset(bytes: Uint8Array, start: number, end: number, depthMax: number, keysMax: number): void {
    assert(end <= bytes.length, 'a value ends inside its bytes');
    assert(depthMax <= depthLimit, 'depth fits the stack of open containers');
    this.bytes = bytes;
    this.position = skipSpace(bytes, start, end);
    this.failure = 0;
    this.#end = end;
    this.#depth = 0;
    this.#depthMax = depthMax;
    allowKeys(keysMax);
  }

  /** First byte of the value at the cursor; 0 when there is none. */
  peek(): number {
    return this.position < this.#end ? (this.bytes[this.position] as number) : 0;
  }

  enterObject(): boolean {
    return this.#enter(openBrace);
  }

  enterArray(): boolean {
    return this.#enter(openBracket);
  }

  #enter(open: number): boolean {
    if (this.peek() !== open) return this.#fail(malformed);
    if (this.#depth >= this.#depthMax) return this.#fail(tooDeep);
    this.#depth++;
    this.#first = true;
    this.position++;
    return true;
  }

  /** Steps to the value of the next member; false after the closing brace has been consumed. */
  nextMember(): boolean {
    if (!this.#next(closeBrace)) return false;
    const start = this.position;
    const after = skipKey(this.bytes, start, this.#end);
    if (after < 0) return this.#fail(after);
    this.keyStart = start + 1;
    // skipKey ends after the colon; the key's closing quote is the last quote before it.
    let close = after - 2;
    while (this.bytes[close] !== quote) close--;
    this.keyEnd = close;
    this.position = skipSpace(this.bytes, after, this.#end);
    return true;
  }

  /** Steps to the next element; false after the closing bracket has been consumed. */
  nextElement(): boolean {
    return this.#next(closeBracket);
  }

  #next(close: number): boolean {
    if (this.failure !== 0) return false;
    let p = skipSpace(this.bytes, this.position, this.#end);
    if (p >= this.#end) return this.#fail(malformed);
    const c = this.bytes[p];
    if (c === close) {
      this.position = p + 1;
      this.#depth--;
      this.#first = false;
      return false;
    }
    if (!this.#first) {
      if (c !== comma) return this.#fail(malformed);
      p = skipSpace(this.bytes, p + 1, this.#end);
      if (this.bytes[p] === close) return this.#fail(malformed);
    }
    this.#first = false;
    this.position = p;
    return true;
  }

  /** Skips the value at the cursor and notes where it was. */
  skip(): boolean {
    const start = this.position;
    const after =
      this.peek() === quote
        ? skipString(this.bytes, start + 1, this.#end)
        : skipValue(this.bytes, start, this.#end, this.#depthMax - this.#depth);
    if (after < 0) return this.#fail(after);
    this.valueStart = start;
    this.valueEnd = after;
    this.position = after;
    return true;
  }

  /** True when the walk is over and nothing but whitespace follows. */
  finished(): boolean {
    return (
      this.failure === 0 &&
      this.#depth === 0 &&
      skipSpace(this.bytes, this.position, this.#end) === this.#end
    );
  }

  /** True when the key is `name` as it stands, without escapes. */
  keyIs(name: string): boolean {
    return equalsAscii(this.bytes, this.keyStart, this.keyEnd, name);
  }

  #fail(reason: number): false {
    if (this.failure === 0) this.failure = reason;
    return false;
  }
}

/** True when the bytes are exactly the ASCII text. */
export function equalsAscii(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (bytes[start + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}
