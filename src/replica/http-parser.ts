/**
 * Strict HTTP/1.1 request parser for one connection of the simulated replica.
 *
 * Bytes go in with feed() in any segmentation; take() hands out one whole request at a time, so
 * pipelined requests are served in order. Every framing a second parser could read differently
 * (two lengths, length and chunked, bare CR or LF, folded lines, odd chunk sizes) fails the
 * connection. Head and body are bounded. Runs on the replica's event loop; never blocks.
 */
export interface RequestHead {
  method: string;
  /** Path and query as sent. */
  target: string;
  minorVersion: number;
  keepAlive: boolean;
  expectContinue: boolean;
  authorization: string;
  apiKey: string;
  contentType: string;
  requestId: string;
  /** Value of `x-replica-fault`. */
  fault: string;
  /** The head as received, for tests that ask what arrived. */
  raw: string;
}

export interface ParsedRequest extends RequestHead {
  body: Buffer;
}

export interface ParseFailure {
  status: number;
  message: string;
}

const HEAD_BYTES_MAX = 32 * 1024;
const HEAD_END = Buffer.from('\r\n\r\n');
const REQUEST_LINE = /^([A-Z]{1,16}) (\/[\x21-\x7e]*) HTTP\/1\.([01])$/;
/** All header lines at once: token, colon, visible text or tabs. Refuses folds, bare CR, LF and NUL. */
const HEADER_LINES = /^(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*)*$/;
/** In an unfinished head: an LF without its CR, or a CR that no LF follows. */
const BARE_LINE_END = /(?:^|[^\r])\n|\r[^\n]/;
const CHUNK_SIZE = /^[0-9a-fA-F]{1,8}$/;
const CHUNK_LINE_BYTES_MAX = 10;

type BodyState = 'none' | 'length' | 'chunk-size' | 'chunk-data' | 'chunk-end' | 'chunk-last';

export class RequestParser {
  failure: ParseFailure | undefined;
  readonly #bodyBytesMax: number;
  #buffered: Buffer[] = [];
  #bufferedBytes = 0;
  #head: RequestHead | undefined;
  #state: BodyState = 'none';
  /** Body bytes still missing from the length, or from the current chunk. */
  #missing = 0;
  #body: Buffer[] = [];
  #bodyBytes = 0;
  #contentLength = 0;
  #chunked = false;

  constructor(bodyBytesMax: number) {
    this.#bodyBytesMax = bodyBytesMax;
  }

  /** Bytes received and not yet part of a request that take() returned. */
  get pendingBytes(): number {
    return this.#bufferedBytes + this.#bodyBytes;
  }

  /** True while a head with `expect: 100-continue` waits for a body that has not begun. */
  get awaitsContinue(): boolean {
    return this.#head?.expectContinue === true && this.pendingBytes === 0;
  }

  feed(chunk: Buffer): void {
    this.#buffered.push(chunk);
    this.#bufferedBytes += chunk.length;
  }

  /** The next whole request; undefined when bytes are missing or `failure` is set. */
  take(): ParsedRequest | undefined {
    if (this.failure !== undefined) return undefined;
    if (this.#head === undefined && !this.#takeHead()) return undefined;
    const head = this.#head;
    if (head === undefined || !this.#takeBody()) return undefined;
    const body = this.#body.length === 1 ? this.#body[0] : undefined;
    const request = Object.assign(head, { body: body ?? Buffer.concat(this.#body) });
    this.#head = undefined;
    this.#state = 'none';
    this.#body = [];
    this.#bodyBytes = 0;
    return request;
  }

  #fail(status: number, message: string): false {
    this.failure = { status, message };
    return false;
  }

  #takeHead(): boolean {
    if (this.#bufferedBytes === 0) return false;
    const bytes = this.#joined();
    const end = bytes.subarray(0, HEAD_BYTES_MAX + HEAD_END.length).indexOf(HEAD_END);
    if (end < 0) {
      if (bytes.length > HEAD_BYTES_MAX) return this.#fail(431, 'request head too large');
      if (BARE_LINE_END.test(bytes.toString('latin1'))) return this.#fail(400, 'bare CR or LF');
      return false;
    }
    const head = this.#parseHead(bytes, end);
    if (head === undefined) return false;
    this.#consume(bytes, end + HEAD_END.length);
    this.#head = head;
    this.#state = this.#chunked ? 'chunk-size' : 'length';
    this.#missing = this.#contentLength;
    return true;
  }

  #parseHead(bytes: Buffer, end: number): RequestHead | undefined {
    const raw = bytes.toString('latin1', 0, end);
    const lineEnd = raw.indexOf('\r\n');
    const headersAt = lineEnd < 0 ? raw.length : lineEnd;
    const line = REQUEST_LINE.exec(raw.slice(0, headersAt));
    if (line === null) {
      this.#fail(400, 'malformed request line');
      return undefined;
    }
    if (!HEADER_LINES.test(raw.slice(headersAt))) {
      this.#fail(400, 'malformed header');
      return undefined;
    }
    const head: RequestHead = {
      method: line[1] ?? '',
      target: line[2] ?? '',
      minorVersion: line[3] === '1' ? 1 : 0,
      keepAlive: line[3] === '1',
      expectContinue: false,
      authorization: '',
      apiKey: '',
      contentType: '',
      requestId: '',
      fault: '',
      raw,
    };
    return this.#readHeaders(head, bytes, headersAt) ? head : undefined;
  }

  #readHeaders(head: RequestHead, bytes: Buffer, headersAt: number): boolean {
    const raw = head.raw;
    let hosts = 0;
    let lengths = 0;
    let encodings = 0;
    this.#contentLength = 0;
    this.#chunked = false;
    let at = headersAt;
    while (at < raw.length) {
      const colon = raw.indexOf(':', at);
      const next = raw.indexOf('\r\n', colon);
      const end = next < 0 ? raw.length : next;
      switch (raw.slice(at + 2, colon).toLowerCase()) {
        case 'host':
          hosts++;
          break;
        case 'content-length':
          lengths++;
          if (!this.#readLength(raw.slice(colon + 1, end).trim())) return false;
          break;
        case 'transfer-encoding':
          encodings++;
          if (
            raw
              .slice(colon + 1, end)
              .trim()
              .toLowerCase() !== 'chunked'
          ) {
            return this.#fail(400, 'transfer-encoding is not exactly chunked');
          }
          this.#chunked = true;
          break;
        case 'connection':
          head.keepAlive = keepsAlive(raw.slice(colon + 1, end), head.minorVersion);
          break;
        case 'expect':
          if (
            raw
              .slice(colon + 1, end)
              .trim()
              .toLowerCase() !== '100-continue'
          ) {
            return this.#fail(417, 'unknown expectation');
          }
          head.expectContinue = true;
          break;
        case 'authorization':
          if (head.authorization !== '') return this.#fail(400, 'duplicate authorization');
          head.authorization = raw.slice(colon + 1, end).trim();
          break;
        case 'x-api-key':
          head.apiKey = raw.slice(colon + 1, end).trim();
          break;
        case 'content-type':
          if (head.contentType !== '') return this.#fail(400, 'duplicate content-type');
          head.contentType = raw.slice(colon + 1, end).trim();
          break;
        case 'x-request-id':
          // Decoded afresh: a slice would keep the whole head alive as long as the id is counted.
          head.requestId = bytes.toString('latin1', colon + 1, end).trim();
          break;
        case 'x-replica-fault':
          head.fault = raw.slice(colon + 1, end).trim();
          break;
      }
      at = end;
    }
    if (lengths > 1 || encodings > 1) return this.#fail(400, 'duplicate message length');
    if (lengths + encodings > 1) return this.#fail(400, 'content-length and transfer-encoding');
    if (encodings > 0 && head.minorVersion === 0) return this.#fail(400, 'chunked in HTTP/1.0');
    if (hosts > 1 || (hosts === 0 && head.minorVersion === 1)) return this.#fail(400, 'bad host');
    return true;
  }

  #readLength(value: string): boolean {
    if (!/^[0-9]{1,15}$/.test(value)) return this.#fail(400, 'invalid content-length');
    this.#contentLength = Number(value);
    if (this.#contentLength > this.#bodyBytesMax) return this.#fail(413, 'request body too large');
    return true;
  }

  /** Moves buffered bytes into the body; true when it is complete. */
  #takeBody(): boolean {
    for (;;) {
      if (this.#state === 'length') {
        if (this.#bufferedBytes < this.#missing) return false;
        this.#takeData();
        return true;
      }
      if (this.#state === 'chunk-data') {
        if (!this.#takeData()) return false;
        this.#state = 'chunk-end';
        continue;
      }
      const line = this.#takeLine();
      if (line === undefined) return false;
      if (this.#state === 'chunk-size') {
        if (!CHUNK_SIZE.test(line)) return this.#fail(400, 'malformed chunk size');
        this.#missing = Number.parseInt(line, 16);
        if (this.#bodyBytes + this.#missing > this.#bodyBytesMax) {
          return this.#fail(413, 'request body too large');
        }
        this.#state = this.#missing === 0 ? 'chunk-last' : 'chunk-data';
      } else {
        if (line !== '') return this.#fail(400, 'malformed chunk end or trailer');
        if (this.#state === 'chunk-last') return true;
        this.#state = 'chunk-size';
      }
    }
  }

  /** Takes up to `#missing` buffered bytes as body; true when none is missing. */
  #takeData(): boolean {
    while (this.#missing > 0) {
      const first = this.#buffered[0];
      if (first === undefined) return false;
      const part = first.length <= this.#missing ? first : first.subarray(0, this.#missing);
      this.#body.push(part);
      this.#bodyBytes += part.length;
      this.#missing -= part.length;
      this.#bufferedBytes -= part.length;
      if (part === first) this.#buffered.shift();
      else this.#buffered[0] = first.subarray(part.length);
    }
    return true;
  }

  /** A line of chunk framing without its CRLF; undefined when incomplete or failed. */
  #takeLine(): string | undefined {
    if (this.#bufferedBytes === 0) return undefined;
    const bytes = this.#joined();
    const line = bytes.toString('latin1', 0, CHUNK_LINE_BYTES_MAX + 2);
    const end = line.indexOf('\r\n');
    if (end < 0) {
      if (BARE_LINE_END.test(line) || line.length > CHUNK_LINE_BYTES_MAX) {
        this.#fail(400, 'malformed chunk framing');
      }
      return undefined;
    }
    this.#consume(bytes, end + 2);
    return line.slice(0, end);
  }

  #joined(): Buffer {
    const first = this.#buffered[0];
    if (first !== undefined && this.#buffered.length === 1) return first;
    const joined = Buffer.concat(this.#buffered);
    this.#buffered = [joined];
    return joined;
  }

  #consume(bytes: Buffer, count: number): void {
    this.#buffered = count === bytes.length ? [] : [bytes.subarray(count)];
    this.#bufferedBytes -= count;
  }
}

function keepsAlive(connection: string, minorVersion: number): boolean {
  const options = connection.toLowerCase();
  if (options.includes('close')) return false;
  return minorVersion === 1 || options.includes('keep-alive');
}
