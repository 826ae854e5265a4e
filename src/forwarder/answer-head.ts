/**
 * The head of a replica's answer: what it says about the body, and what of it the client gets. Pure;
 * forwarder threads.
 */
import { encodeHeadersInto } from '../protocol/header-codec.ts';
import {
  isForwardedToClient,
  isRateLimit,
  isSafeValue,
  parseContentLength,
} from '../protocol/http-rules.ts';
import type { AnswerShape } from '../protocol/routes.ts';
import { responseHeadBytes, writeResponseHead } from '../shm/response-records.ts';
import type { AnswerFacts } from './answer.ts';
import type { ReplicaPool } from './pools.ts';

export type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

export class AnswerHead implements AnswerFacts {
  readonly status: number;
  readonly shape: AnswerShape;
  readonly choices: number;
  /** -1 when the replica did not say, and for event streams, out of which events may be dropped. */
  readonly contentLength: number;
  readonly framed: boolean;
  readonly isJson: boolean;
  readonly isEventStream: boolean;
  /** Encoded although identity was asked for. */
  readonly isEncoded: boolean;
  readonly mayGoOn: boolean;
  readonly mayAskAgain: boolean;

  constructor(
    status: number,
    headers: AnswerHeaders,
    shape: AnswerShape,
    choices: number,
    { mayGoOn = false, mayAskAgain = false }: Pick<AnswerFacts, 'mayGoOn' | 'mayAskAgain'> = {},
  ) {
    const type = single(headers['content-type']);
    const length = single(headers['content-length']);
    const encoding = single(headers['content-encoding']);
    this.status = status;
    this.mayGoOn = mayGoOn;
    this.mayAskAgain = mayAskAgain;
    this.shape = shape;
    this.choices = choices;
    this.isEventStream = startsWithWord(type, 'text/event-stream');
    this.isEncoded = encoding !== '' && encoding.toLowerCase() !== 'identity';
    this.isJson = !this.isEncoded && startsWithWord(type, 'application/json');
    this.contentLength = this.isEventStream || length === '' ? -1 : parseContentLength(length);
    this.framed = length !== '' || headers['transfer-encoding'] !== undefined || status === 204;
  }
}

/**
 * ResponseHead and header blob, at most `bytesMax`. Headers that do not fit are left out but for the
 * content type: a client can do without the rest. Where the replica was asked with a key of the gateway,
 * what it says of the limits of that key is not for clients.
 */
export function encodeAnswerHead(
  head: Pick<AnswerHead, 'status' | 'contentLength'>,
  headers: AnswerHeaders,
  bytesMax: number,
  { own: { hasKey }, address: { row: replica } }: Pick<ReplicaPool, 'own' | 'address'>,
): Uint8Array {
  const list: string[] = [];
  let size = responseHeadBytes + 2;
  for (const name in headers) {
    if (!isForwardedToClient(name) || (hasKey && isRateLimit(name))) continue;
    const value = joined(headers[name]);
    if (!isSafeValue(value)) continue;
    const bytes = 4 + name.length + value.length;
    if (size + bytes > bytesMax) continue;
    size += bytes;
    list.push(name, value);
  }
  const bytes = new Uint8Array(size);
  const headerLength = encodeHeadersInto(bytes, responseHeadBytes, list);
  const { status, contentLength } = head;
  writeResponseHead(bytes, 0, { status, headerLength, contentLength, replica });
  return bytes;
}

/** The value of a header that may appear once; the first when a replica repeats it. */
export function single(value: string | string[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? '';
}

function joined(value: string | string[] | undefined): string {
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

function startsWithWord(type: string, word: string): boolean {
  return type.slice(0, word.length).toLowerCase() === word;
}
