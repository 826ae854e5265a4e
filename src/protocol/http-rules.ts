/**
 * The HTTP edge rules that both listener engines apply to a request head. Runs on acceptors; never
 * blocks; one record per acceptor, reset for each request.
 *
 * One pass over the headers: whatever decides where a message ends may appear once, not be empty and
 * not be read in two ways. Headers for replicas are built from an allow-list; client credentials,
 * hop-by-hop headers and everything unknown stay here.
 */
import { errors } from '../errors/catalogue.ts';

/** Bits of the headers that may appear once at most. */
const Once = {
  contentLength: 1,
  transferEncoding: 2,
  host: 4,
  authorization: 8,
  contentType: 16,
  expect: 32,
  apiKey: 64,
  requestId: 128,
  contentEncoding: 256,
  sessionId: 512,
  traceparent: 1024,
  priority: 2048,
  deadline: 4096,
  hedge: 8192,
  explain: 16_384,
  cascade: 32_768,
} as const;

/** Request headers that reach a replica as they are. */
const forwardedToReplica = new Set([
  'accept',
  'anthropic-beta',
  'anthropic-version',
  'content-type',
  'idempotency-key',
  'openai-beta',
  'tracestate',
  'x-session-id',
]);

/** Response headers that reach the client as they are. */
const forwardedToClient = new Set([
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-type',
  'openai-model',
  'openai-processing-ms',
  'openai-version',
  'request-id',
  'retry-after',
  'retry-after-ms',
  'x-should-retry',
]);
/** Of one connection or of the client that sends on it (RFC 9110, section 7.6.1), and what it encodes. */
const ofConnection: ReadonlySet<string> = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
const rateLimitPrefixes = ['x-ratelimit-', 'anthropic-ratelimit-'];

/** Lower-case name in; true when a replica may see the header. */
export function isForwardedToReplica(name: string): boolean {
  return forwardedToReplica.has(name);
}

/** Lower-case name in; true when the header is the HTTP client's to set, and never goes on. */
export function isOfConnection(name: string): boolean {
  return ofConnection.has(name);
}

/** Lower-case name in; true when a client may see the header of a replica. */
export function isForwardedToClient(name: string): boolean {
  return forwardedToClient.has(name) || isRateLimit(name);
}

/** Lower-case name in; true when the header tells of the limits that a server has set for a key. */
export function isRateLimit(name: string): boolean {
  for (const prefix of rateLimitPrefixes) if (name.startsWith(prefix)) return true;
  return false;
}

/** A header value is Latin-1 without control codes other than tab (RFC 9110, section 5.5). */
export function isSafeValue(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    const c = value.charCodeAt(i);
    if ((c < 0x20 && c !== 0x09) || c === 0x7f || c > 0xff) return false;
  }
  return true;
}

/** Content-Length of a response or request: digits only, exact in a double; -1 otherwise. */
export function parseContentLength(value: string): number {
  if (value.length === 0 || value.length > 16) return -1;
  let length = 0;
  for (let i = 0; i < value.length; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return length <= Number.MAX_SAFE_INTEGER ? length : -1;
}

/** Accumulates the headers of one request: `reset`, `add` for each, `finish`. */
export class RequestHead {
  /** -1 when absent. */
  contentLength = -1;
  isChunked = false;
  expectsContinue = false;
  host = '';
  authorization = '';
  apiKey = '';
  contentType = '';
  requestId = '';
  sessionId = '';
  traceparent = '';
  priority = '';
  deadlineMs = '';
  hedge = '';
  explain = '';
  cascade = '';
  /** The header an error is about; '' otherwise. */
  errorParam = '';
  /** Name, value, name, value ... of what a replica may see. */
  readonly forwarded: string[] = [];
  #seen = 0;
  #error = 0;

  reset(): void {
    this.contentLength = -1;
    this.isChunked = this.expectsContinue = false;
    this.host = this.authorization = this.apiKey = this.contentType = '';
    this.requestId = this.sessionId = this.traceparent = '';
    this.priority = this.deadlineMs = this.hedge = this.explain = '';
    this.cascade = this.errorParam = '';
    this.forwarded.length = 0;
    this.#seen = this.#error = 0;
  }

  /** Takes one header. The name is lower-case; order does not matter. */
  add(name: string, value: string): void {
    switch (name) {
      case '':
        this.#refuse(errors.BAD_FRAMING.number, 'header name');
        return;
      case 'content-length':
        this.#once(Once.contentLength, name, value);
        this.contentLength = parseContentLength(value);
        if (this.contentLength < 0) this.#refuse(errors.BAD_FRAMING.number, name);
        return;
      case 'transfer-encoding':
        this.#once(Once.transferEncoding, name, value);
        this.isChunked = true;
        if (value.toLowerCase() !== 'chunked') this.#refuse(errors.BAD_FRAMING.number, name);
        return;
      case 'host':
        this.host = this.#once(Once.host, name, value);
        return;
      case 'expect':
        this.#once(Once.expect, name, value);
        this.expectsContinue = value.toLowerCase() === '100-continue';
        if (!this.expectsContinue) this.#refuse(errors.EXPECTATION.number, name);
        return;
      case 'content-encoding':
        this.#once(Once.contentEncoding, name, value);
        if (value.toLowerCase() !== 'identity') this.#refuse(errors.CONTENT_ENCODING.number, name);
        return;
      default:
        this.#addPlain(name, value);
    }
  }

  #addPlain(name: string, value: string): void {
    switch (name) {
      case 'authorization':
        this.authorization = this.#once(Once.authorization, name, value);
        break;
      case 'x-api-key':
        this.apiKey = this.#once(Once.apiKey, name, value);
        break;
      case 'content-type':
        this.contentType = this.#once(Once.contentType, name, value);
        break;
      case 'x-request-id':
        this.requestId = this.#onceOrEmpty(Once.requestId, name, value);
        break;
      case 'x-session-id':
        this.sessionId = this.#onceOrEmpty(Once.sessionId, name, value);
        break;
      case 'traceparent':
        this.traceparent = this.#onceOrEmpty(Once.traceparent, name, value);
        break;
      case 'x-sluice-priority':
        this.priority = this.#onceOrEmpty(Once.priority, name, value);
        break;
      case 'x-sluice-deadline-ms':
        this.deadlineMs = this.#onceOrEmpty(Once.deadline, name, value);
        break;
      case 'x-sluice-hedge':
        this.hedge = this.#onceOrEmpty(Once.hedge, name, value);
        break;
      case 'x-sluice-explain':
        this.explain = this.#onceOrEmpty(Once.explain, name, value);
        break;
      case 'x-sluice-cascade':
        this.cascade = this.#onceOrEmpty(Once.cascade, name, value);
        break;
    }
    if (!forwardedToReplica.has(name)) return;
    if (isSafeValue(value)) this.forwarded.push(name, value);
    else this.#refuse(errors.BAD_HEADER.number, name);
  }

  /** 0 when the head is acceptable, else the number of an entry of errors/. */
  finish(method: string): number {
    if (this.#error !== 0) return this.#error;
    if (this.isChunked && this.contentLength >= 0) {
      return this.#refuse(errors.BAD_FRAMING.number, 'content-length');
    }
    if ((this.#seen & Once.host) === 0) return this.#refuse(errors.BAD_FRAMING.number, 'host');
    const hasBody = this.isChunked || this.contentLength >= 0;
    if (!hasBody && (method === 'POST' || method === 'PUT' || method === 'PATCH')) {
      return this.#refuse(errors.LENGTH_REQUIRED.number, 'content-length');
    }
    return 0;
  }

  #once(bit: number, name: string, value: string): string {
    if (value === '') this.#refuse(errors.BAD_FRAMING.number, name);
    return this.#onceOrEmpty(bit, name, value);
  }

  #onceOrEmpty(bit: number, name: string, value: string): string {
    if ((this.#seen & bit) !== 0) this.#refuse(errors.BAD_FRAMING.number, name);
    this.#seen |= bit;
    if (!isSafeValue(value)) this.#refuse(errors.BAD_FRAMING.number, name);
    return value;
  }

  /** Framing outranks every other reason: it decides whether the next byte can be trusted. */
  #refuse(number: number, param: string): number {
    if (this.#error === 0 || number === errors.BAD_FRAMING.number) {
      this.#error = number;
      this.errorParam = param;
    }
    return this.#error;
  }
}
