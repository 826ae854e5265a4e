/**
 * Finds the events of a server-sent-event stream in whatever pieces it arrives. Runs on forwarders;
 * never blocks; one scanner per stream.
 *
 * The bytes pass through unchanged: the raw ranges of all events, then `pending()`, are the input
 * exactly. An event inside one chunk is reported in place; only an event that spans chunks is
 * copied. Lines end with LF, CRLF or CR, a CRLF may be split, a BOM may start the stream. An event
 * is bounded: past the cap the scanner reports EVENT_TOO_LARGE and stays there.
 */
import { Buffer } from 'node:buffer';
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';

export const eventBytesMaxDefault = 1024 * 1024;

const lf = 0x0a;
const cr = 0x0d;
const colon = 0x3a;
const space = 0x20;
const empty = new Uint8Array(0);
const carryBytesMin = 4096;
/** A carry buffer above this size is given back once its event has been reported. */
const carryBytesKept = 64 * 1024;

/** One event. The scanner reuses the record: it is valid during the callback only. */
export interface SseEvent {
  /** `bytes[start, end)` are the raw bytes, with their line ends and comments. */
  bytes: Uint8Array;
  start: number;
  end: number;
  /** `data[dataStart, dataEnd)` is the payload; `data` is `bytes` unless several lines were joined. */
  data: Uint8Array;
  dataStart: number;
  dataEnd: number;
  /** Number of data lines. 0: nothing but comments, other fields or blank lines. */
  dataLines: number;
  /** The value of the last `event` field; empty range when there is none. */
  typeStart: number;
  typeEnd: number;
  /** False only for what `finish` reports: the stream ended before the blank line. */
  terminated: boolean;
}

export type SseSink = (event: SseEvent) => void;

export class SseScanner {
  readonly #sink: SseSink;
  #eventBytesMax: number;
  readonly #event: SseEvent = {
    bytes: empty,
    start: 0,
    end: 0,
    data: empty,
    dataStart: 0,
    dataEnd: 0,
    dataLines: 0,
    typeStart: 0,
    typeEnd: 0,
    terminated: true,
  };
  #carry: Uint8Array<ArrayBuffer> = empty;
  #carried = 0;
  /** True while nothing of the current line has been seen. */
  #lineEmpty = true;
  /** True after a CR: an LF right behind it belongs to the same line end. */
  #afterCr = false;
  #firstEvent = true;
  /** The last line of the chunk at hand that is not blank, so that it is not searched twice. */
  #lastLineStart = -1;
  #lastLineEnd = 0;
  #failed = 0;

  constructor(sink: SseSink, eventBytesMax = eventBytesMaxDefault) {
    assert(eventBytesMax > 0);
    this.#sink = sink;
    this.#eventBytesMax = eventBytesMax;
  }

  /** What the events behind those that were reported may have. */
  set eventBytesMax(bytes: number) {
    assert(bytes > 0);
    this.#eventBytesMax = bytes;
  }

  /** Reports the events that `chunk` completes. 0, or the number of an entry of errors/. */
  push(chunk: Uint8Array): number {
    if (this.#failed !== 0) return this.#failed;
    let eventStart = 0;
    let p = 0;
    // Each byte is searched once: a position found stays good until the walk has passed it.
    let nextCr = chunk.indexOf(cr);
    let nextLf = chunk.indexOf(lf);
    const length = chunk.length;
    this.#lastLineStart = -1;
    while (p < length) {
      if (this.#afterCr) {
        this.#afterCr = false;
        if (chunk[p] === lf) {
          p++;
          // The event it belongs to has been reported: the LF follows it as a report of its own.
          if (this.#carried === 0) {
            if (!this.#report(chunk, eventStart, p)) return this.#failed;
            eventStart = p;
          }
          continue;
        }
      }
      if (nextCr >= 0 && nextCr < p) nextCr = chunk.indexOf(cr, p);
      if (nextLf >= 0 && nextLf < p) nextLf = chunk.indexOf(lf, p);
      const lineEnd = nextCr < 0 || (nextLf >= 0 && nextLf < nextCr) ? nextLf : nextCr;
      if (lineEnd < 0) {
        this.#lineEmpty = false;
        break;
      }
      const isBlank = this.#lineEmpty && lineEnd === p;
      this.#lineEmpty = true;
      if (!isBlank) {
        this.#lastLineStart = p;
        this.#lastLineEnd = lineEnd;
      }
      p = lineEnd + 1;
      if (lineEnd === nextCr) {
        if (p < length && chunk[p] === lf) p++;
        else this.#afterCr = p === length;
      }
      if (!isBlank) continue;
      if (!this.#report(chunk, eventStart, p)) return this.#failed;
      eventStart = p;
    }
    if (eventStart < length && !this.#keep(chunk, eventStart, length)) return this.#failed;
    return 0;
  }

  /** Bytes of the unfinished event. Valid until the next push. */
  pending(): Uint8Array {
    return this.#carry.subarray(0, this.#carried);
  }

  /** The stream ended: reports what is pending as an event that is not terminated. */
  finish(): void {
    if (this.#failed !== 0 || this.#carried === 0) return;
    const end = this.#carried;
    this.#carried = 0;
    this.#lastLineStart = -1;
    this.#emit(this.#carry, 0, end, false);
  }

  #report(chunk: Uint8Array, start: number, end: number): boolean {
    if (this.#carried === 0) {
      if (end - start > this.#eventBytesMax) return this.#fail();
      this.#emit(chunk, start, end, true);
      return true;
    }
    if (!this.#keep(chunk, start, end)) return false;
    const carryEnd = this.#carried;
    this.#carried = 0;
    this.#lastLineStart = -1;
    this.#emit(this.#carry, 0, carryEnd, true);
    if (this.#carry.length > carryBytesKept) this.#carry = empty;
    return true;
  }

  #keep(chunk: Uint8Array, start: number, end: number): boolean {
    const needed = this.#carried + end - start;
    if (needed > this.#eventBytesMax) return this.#fail();
    if (needed > this.#carry.length) {
      const doubled = Math.max(needed, 2 * this.#carry.length, carryBytesMin);
      this.#growCarry(Math.min(doubled, this.#eventBytesMax));
    }
    // A chunk of a few bytes is not worth a view.
    if (end - start < 16) {
      for (let i = start; i < end; i++) this.#carry[this.#carried++] = chunk[i] as number;
    } else {
      this.#carry.set(chunk.subarray(start, end), this.#carried);
      this.#carried = needed;
    }
    return true;
  }

  /** What it outgrows is given back at once: a collection may come only after many large events. */
  #growCarry(bytes: number): void {
    if (this.#carry.length === 0) this.#carry = Buffer.allocUnsafeSlow(bytes);
    else this.#carry = Buffer.from(this.#carry.buffer.transfer(bytes));
  }

  #dropCarry(): void {
    if (this.#carry.length > 0) this.#carry.buffer.transfer(0);
    this.#carry = empty;
    this.#carried = 0;
  }

  #fail(): false {
    this.#failed = errors.EVENT_TOO_LARGE.number;
    this.#dropCarry();
    return false;
  }

  #emit(bytes: Uint8Array, start: number, end: number, terminated: boolean): void {
    const event = this.#event;
    event.bytes = bytes;
    event.start = start;
    event.end = end;
    event.terminated = terminated;
    const from = this.#firstEvent && startsWithBom(bytes, start, end) ? start + bomBytes : start;
    parseFields(event, from, this.#lastLineStart, this.#lastLineEnd);
    this.#firstEvent = false;
    this.#sink(event);
  }
}

/** Bytes of a byte order mark. */
export const bomBytes = 3;

export function startsWithBom(bytes: Uint8Array, start: number, end: number): boolean {
  return (
    end - start >= bomBytes &&
    bytes[start] === 0xef &&
    bytes[start + 1] === 0xbb &&
    bytes[start + 2] === 0xbf
  );
}

/**
 * Reads the data and event fields of one raw event. The first data line is reported in place. The
 * line that starts at `knownStart` is known to end at `knownEnd`.
 */
function parseFields(event: SseEvent, from: number, knownStart: number, knownEnd: number): void {
  const { bytes, end } = event;
  event.data = bytes;
  event.dataStart = event.dataEnd = from;
  event.typeStart = event.typeEnd = from;
  event.dataLines = 0;
  let joined: Buffer | undefined;
  let joinedLength = 0;
  for (let p = from; p < end; ) {
    const lineEnd = p === knownStart ? knownEnd : endOfLine(bytes, p, end);
    const c = bytes[p];
    if (c === 0x64 && isField(bytes, p, lineEnd, 'data')) {
      const valueStart = startOfValue(bytes, p + 4, lineEnd);
      if (event.dataLines++ === 0) {
        event.dataStart = valueStart;
        event.dataEnd = lineEnd;
      } else {
        if (joined === undefined) {
          joined = Buffer.allocUnsafe(end - event.start);
          joined.set(bytes.subarray(event.dataStart, event.dataEnd));
          joinedLength = event.dataEnd - event.dataStart;
        }
        joined[joinedLength++] = lf;
        joined.set(bytes.subarray(valueStart, lineEnd), joinedLength);
        joinedLength += lineEnd - valueStart;
      }
    } else if (c === 0x65 && isField(bytes, p, lineEnd, 'event')) {
      event.typeStart = startOfValue(bytes, p + 5, lineEnd);
      event.typeEnd = lineEnd;
    }
    p = bytes[lineEnd] === cr && bytes[lineEnd + 1] === lf ? lineEnd + 2 : lineEnd + 1;
  }
  if (joined === undefined) return;
  event.data = joined;
  event.dataStart = 0;
  event.dataEnd = joinedLength;
}

function endOfLine(bytes: Uint8Array, p: number, end: number): number {
  while (p < end && bytes[p] !== lf && bytes[p] !== cr) p++;
  return p;
}

function isField(bytes: Uint8Array, p: number, lineEnd: number, name: string): boolean {
  const after = p + name.length;
  if (after > lineEnd || (after < lineEnd && bytes[after] !== colon)) return false;
  for (let i = 1; i < name.length; i++) if (bytes[p + i] !== name.charCodeAt(i)) return false;
  return true;
}

/** Skips the colon and one space after it. */
function startOfValue(bytes: Uint8Array, p: number, lineEnd: number): number {
  if (p < lineEnd) p++;
  if (p < lineEnd && bytes[p] === space) p++;
  return p;
}
