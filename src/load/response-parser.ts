/**
 * A lean, strict HTTP/1.1 response parser for the load generator: one response at a time, fed with
 * whatever the socket delivers, split anywhere. Body bytes are handed on as ranges of the read
 * buffer, which is reused: the sink must not keep them.
 *
 * Framing by content-length, chunked, or end of connection. Anything outside the grammar is a
 * `ParseFault`, never an exception. No clock, no socket; one instance per connection.
 */

export const ParseFault = { none: 0, head: 1, chunk: 2, unsolicited: 3 } as const;
export type ParseFault = (typeof ParseFault)[keyof typeof ParseFault];

export interface ResponseSink {
  /** The final head was read; `status`, `eventStream` and `requestId` of the parser are set. */
  onHead(head: ResponseHead): void;
  onBody(bytes: Buffer, start: number, end: number): void;
}

export interface ResponseHead {
  readonly status: number;
  readonly eventStream: boolean;
  readonly keepAlive: boolean;
  /** Value of x-request-id, or '' when the response carries none. */
  readonly requestId: string;
  /** Milliseconds in the gateway's queue as server-timing tells; -1 when it does not. */
  readonly queueMs: number;
}

const headBytesMax = 32 * 1024;
const chunkSizeMax = 0x7fffffff;

const State = {
  head: 0,
  lengthBody: 1,
  closeBody: 2,
  chunkSize: 3,
  chunkExtension: 4,
  chunkData: 5,
  chunkDataCr: 6,
  chunkDataLf: 7,
  trailer: 8,
  done: 9,
} as const;

const CR = 13;
const LF = 10;

export class ResponseParser implements ResponseHead {
  status = 0;
  eventStream = false;
  keepAlive = true;
  requestId = '';
  queueMs = -1;

  readonly #sink: ResponseSink;
  readonly #head = Buffer.allocUnsafe(headBytesMax);
  #headLength = 0;
  #state: number = State.head;
  #remaining = 0;
  #sizeDigits = 0;
  #trailerLineLength = 0;

  constructor(sink: ResponseSink) {
    this.#sink = sink;
  }

  /** Ready for the next response on the same connection. */
  reset(): void {
    this.status = 0;
    this.eventStream = false;
    this.keepAlive = true;
    this.requestId = '';
    this.queueMs = -1;
    this.#headLength = 0;
    this.#state = State.head;
  }

  /** True once the framing says that the whole response has arrived. */
  get complete(): boolean {
    return this.#state === State.done;
  }

  /** True when at least one byte of the response has arrived. */
  get started(): boolean {
    return this.#state !== State.head || this.#headLength > 0;
  }

  /** The connection ended. Completes a response that is delimited by it. */
  end(): void {
    if (this.#state === State.closeBody) this.#state = State.done;
  }

  execute(bytes: Buffer, end: number): ParseFault {
    let at = 0;
    while (at < end) {
      switch (this.#state) {
        case State.head:
          at = this.#readHead(bytes, at, end);
          if (at < 0) return ParseFault.head;
          break;
        case State.lengthBody:
        case State.chunkData: {
          const take = Math.min(this.#remaining, end - at);
          this.#sink.onBody(bytes, at, at + take);
          at += take;
          this.#remaining -= take;
          if (this.#remaining > 0) break;
          this.#state = this.#state === State.chunkData ? State.chunkDataCr : State.done;
          break;
        }
        case State.closeBody:
          this.#sink.onBody(bytes, at, end);
          at = end;
          break;
        case State.done:
          return ParseFault.unsolicited;
        default:
          if (!this.#readChunkFraming(bytes[at] as number)) return ParseFault.chunk;
          at++;
      }
    }
    return ParseFault.none;
  }

  /** Copies head bytes up to the empty line, then reads them. Returns the next position or -1. */
  #readHead(bytes: Buffer, start: number, end: number): number {
    const head = this.#head;
    let length = this.#headLength;
    for (let at = start; at < end; at++) {
      if (length === headBytesMax) return -1;
      const byte = bytes[at] as number;
      head[length++] = byte;
      if (byte !== LF || length < 4) continue;
      if (head[length - 2] !== CR) return -1;
      if (head[length - 3] !== LF) continue;
      this.#headLength = 0;
      return this.#interpretHead(length) ? at + 1 : -1;
    }
    this.#headLength = length;
    return end;
  }

  #interpretHead(length: number): boolean {
    const status = statusOf(this.#head);
    if (status < 0) return false;
    // An interim answer (100, 103) precedes the real head on the same connection.
    if (status < 200) return true;
    this.status = status;
    const framing = this.#readHeaders(length);
    if (framing === Framing.invalid) return false;
    const noBody = status === 204 || status === 304;
    if (framing === Framing.none && !noBody) this.keepAlive = false;
    this.#sink.onHead(this);
    if (noBody) this.#state = State.done;
    else if (framing === Framing.chunked) this.#beginChunk();
    else if (framing === Framing.none) this.#state = State.closeBody;
    else {
      this.#remaining = framing;
      this.#state = framing === 0 ? State.done : State.lengthBody;
    }
    return true;
  }

  /** Returns a content length >= 0, or `Framing.chunked`, `.none`, `.invalid`. */
  #readHeaders(length: number): number {
    const head = this.#head;
    let framing: number = Framing.none;
    let at = head.indexOf(LF) + 1;
    while (at < length - 2) {
      const lineEnd = head.indexOf(LF, at) - 1;
      let colon = at;
      while (colon < lineEnd && head[colon] !== 58) colon++;
      if (colon === at || colon === lineEnd || head[lineEnd] !== CR) return Framing.invalid;
      const name = interesting(head, at, colon - at);
      if (name !== '') {
        const value = head.toString('latin1', colon + 1, lineEnd).trim();
        if (name === 'content-length' || name === 'transfer-encoding') {
          // Two framing headers, of one kind or of both, are how responses get mixed up.
          if (framing !== Framing.none) return Framing.invalid;
          framing = name === 'content-length' ? contentLength(value) : transferEncoding(value);
          if (framing === Framing.invalid) return framing;
        } else if (name === 'connection') this.keepAlive = !/\bclose\b/i.test(value);
        else if (name === 'x-request-id') this.requestId = value;
        else if (name === 'server-timing') this.queueMs = queueMsOf(value);
        else this.eventStream = value.startsWith('text/event-stream');
      }
      at = lineEnd + 2;
    }
    return framing;
  }

  #beginChunk(): void {
    this.#state = State.chunkSize;
    this.#remaining = 0;
    this.#sizeDigits = 0;
  }

  #readChunkFraming(byte: number): boolean {
    switch (this.#state) {
      case State.chunkSize: {
        const digit = hexDigit(byte);
        if (digit >= 0) {
          this.#remaining = this.#remaining * 16 + digit;
          return ++this.#sizeDigits <= 8 && this.#remaining <= chunkSizeMax;
        }
        if (this.#sizeDigits === 0 || (byte !== CR && byte !== 59)) return false;
        this.#state = State.chunkExtension;
        return true;
      }
      case State.chunkExtension:
        if (byte !== LF) return true;
        this.#trailerLineLength = 0;
        this.#state = this.#remaining > 0 ? State.chunkData : State.trailer;
        return true;
      case State.chunkDataCr:
        this.#state = State.chunkDataLf;
        return byte === CR;
      case State.chunkDataLf:
        this.#beginChunk();
        return byte === LF;
      default:
        return this.#readTrailer(byte);
    }
  }

  #readTrailer(byte: number): boolean {
    if (byte !== LF) {
      if (byte !== CR) this.#trailerLineLength++;
      return this.#trailerLineLength <= headBytesMax;
    }
    if (this.#trailerLineLength === 0) this.#state = State.done;
    this.#trailerLineLength = 0;
    return true;
  }
}

const Framing = { none: -1, chunked: -2, invalid: -3 } as const;

const names = [
  ...['connection', 'content-type', 'x-request-id', 'content-length', 'transfer-encoding'],
  'server-timing',
];

/** The lower-case name when the parser has a use for the header, else ''. No string is made. */
function interesting(head: Buffer, at: number, length: number): string {
  for (const name of names) {
    if (name.length !== length) continue;
    let i = 0;
    while (i < length && ((head[at + i] as number) | 0x20) === (name.charCodeAt(i) | 0x20)) i++;
    if (i === length) return name;
  }
  return '';
}

/** `HTTP/1.1 200 ...` -> 200; -1 when it is nothing of the kind. */
function statusOf(head: Buffer): number {
  if (head.toString('latin1', 0, 7) !== 'HTTP/1.' || head[8] !== 32) return -1;
  const status = Number(head.toString('latin1', 9, 12));
  return Number.isInteger(status) && status >= 100 && status <= 599 ? status : -1;
}

function queueMsOf(value: string): number {
  const duration = /\bqueue;dur=(\d{1,9}(?:\.\d{1,9})?)/.exec(value);
  return duration === null ? -1 : Number(duration[1]);
}

function contentLength(value: string): number {
  return /^\d{1,15}$/.test(value) ? Number(value) : Framing.invalid;
}

function transferEncoding(value: string): number {
  return value.toLowerCase() === 'chunked' ? Framing.chunked : Framing.invalid;
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 0x20;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
