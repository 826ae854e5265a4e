/**
 * Builds what a client reads around the bytes of a replica: heads, error bodies, error events.
 *
 * Acceptor threads; pure but for the slot columns it reads. Text that came from the client is echoed
 * only where it is known to be harmless: the request id after its check.
 */
import {
  anthropicErrorBody,
  anthropicErrorEvent,
  anthropicStatus,
  errorBody,
  sseErrorEvent,
} from '../errors/bodies.ts';
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import { isForwardedToClient, isSafeValue } from '../protocol/http-rules.ts';
import type { RequestSlots } from '../shm/request-slots.ts';

/** Longest wait that the clients of OpenAI and Anthropic heed. */
const adviceMsMax = 60_000;
/** Longer error bodies of replicas are no messages for people. */
const replicaErrorBytesMax = 16 * 1024;
const encoder = new TextEncoder();
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** What the shape of an error answer depends on. */
export interface Asker {
  readonly requestId: string;
  readonly isAnthropic: boolean;
  readonly hasOrigin: boolean;
}

const exposedHeaders = [
  'x-request-id, x-sluice-replica, x-sluice-model, x-sluice-attempts, x-sluice-batch, x-sluice-explain, server-timing',
  'request-id, retry-after, retry-after-ms, x-should-retry',
  ...['requests', 'tokens'].flatMap((of) =>
    ['limit', 'remaining', 'reset'].map((what) => `x-ratelimit-${what}-${of}`),
  ),
].join(', ');

/** Headers every answer starts with. */
export function commonHeaders(asker: Asker): string[] {
  const headers = ['x-request-id', asker.requestId];
  if (asker.isAnthropic) headers.push('request-id', asker.requestId);
  if (asker.hasOrigin) {
    headers.push('access-control-allow-origin', '*');
    headers.push('access-control-expose-headers', exposedHeaders);
  }
  return headers;
}

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: string[];
  readonly body: Uint8Array;
}

/**
 * `retryAfterMs` 0 takes the advice of the catalogue; `param` names what an error is about, `message` says
 * more than the catalogue can. '' is none.
 */
export function errorAnswer(
  entry: ErrorEntry,
  asker: Asker,
  retryAfterMs = 0,
  param = '',
  message = '',
): ErrorAnswer {
  const headers = commonHeaders(asker);
  headers.push('content-type', 'application/json');
  const waitMs = retryAfterMs > 0 ? retryAfterMs : entry.retryAfterS * 1000;
  if (waitMs > 0 && (entry.status === 429 || entry.status === 503)) {
    headers.push('retry-after', String(Math.ceil(waitMs / 1000)), 'retry-after-ms', `${waitMs}`);
    // Clients take no longer advice and would come again at once.
    if (waitMs > adviceMsMax || entry === errors.BUDGET_SPENT)
      headers.push('x-should-retry', 'false');
  }
  const named = param === '' || param === undefined ? undefined : param;
  if (asker.isAnthropic) {
    // It has no field for a parameter: the message names it, as that of Anthropic does.
    const text = message || (named === undefined ? undefined : `${named}: ${entry.message}`);
    const body = anthropicErrorBody(entry, text, asker.requestId);
    return { status: errorStatus(entry, asker), headers, body };
  }
  const body = errorBody(entry, message || undefined, named);
  return { status: errorStatus(entry, asker), headers, body };
}

/** The status of an error where one can still be sent. */
export function errorStatus(entry: ErrorEntry, { isAnthropic }: Asker): number {
  return isAnthropic ? anthropicStatus(entry) : entry.status;
}

/** The last event of a stream that broke; no [DONE] follows. */
export function errorEvent(entry: ErrorEntry, asker: Asker, message?: string): Uint8Array {
  return asker.isAnthropic
    ? anthropicErrorEvent(entry, message, asker.requestId)
    : sseErrorEvent(entry, message);
}

/**
 * The error body of a replica as the last event of a stream; undefined for what is no JSON object with
 * something in it, or too long for one line. Where clients know it for an error the text stays
 * as it is but for its line breaks, which are white space in JSON and the end of a line in a stream.
 * Elsewhere its `error`, or the whole object where that says nothing, is wrapped.
 */
export function replicaErrorEvent(
  body: Uint8Array,
  { isAnthropic }: Asker,
): Uint8Array | undefined {
  if (body.length > replicaErrorBytesMax) return undefined;
  let text: string;
  let value: { readonly type?: unknown; readonly error?: unknown };
  try {
    text = utf8.decode(body.slice()); // a copy: the decoder may refuse shared memory
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isFilledObject(value)) return undefined;
  const line = text.replace(/[\r\n]+/g, ' ').trim();
  const { type, error } = value;
  if (!isAnthropic) {
    const isError = isFilledObject(error) || (typeof error === 'string' && error !== '');
    return encoder.encode(`data: ${isError ? line : `{"error":${line}}`}\n\n`);
  }
  const isError = type === 'error' && isFilledObject(error);
  const inner = isFilledObject(error) ? JSON.stringify(error) : line;
  const data = isError ? line : `{"type":"error","error":${inner}}`;
  return encoder.encode(`event: error\ndata: ${data}\n\n`);
}

/** Clients take an event for an error by what is in it: an empty object is none. */
function isFilledObject(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.keys(value).length > 0;
}

/** Head of an answer that came from a replica; `fromReplica` is its flat header list. An empty name is not told. */
export function replicaAnswerHeaders(
  asker: Asker,
  fromReplica: readonly string[],
  slots: RequestSlots,
  slot: number,
  replicaName: string,
  modelName = '',
): string[] {
  const headers = commonHeaders(asker);
  for (let i = 0; i + 1 < fromReplica.length; i += 2) {
    const name = fromReplica[i] as string;
    const value = fromReplica[i + 1] as string;
    if (name === 'request-id' && asker.isAnthropic) continue; // ours is the one in our log
    if (isForwardedToClient(name) && isSafeValue(value)) headers.push(name, value);
  }
  if (replicaName !== '') headers.push('x-sluice-replica', replicaName);
  if (modelName !== '') headers.push('x-sluice-model', modelName);
  headers.push('x-sluice-attempts', String(slots.attempts(slot)));
  const sharers = slots.words[slots.row(slot) + slots.at.sharers] as number;
  if (sharers > 1) headers.push('x-sluice-batch', String(sharers));
  headers.push('server-timing', serverTiming(slots, slot));
  return headers;
}

function serverTiming(slots: RequestSlots, slot: number): string {
  const { at, floats } = slots;
  const row = slots.row(slot);
  const read = (field: number): number => floats[(row + field) / 2] ?? 0;
  const picked = read(at.pickedUs);
  const queue = elapsedMs(read(at.publishedUs), picked);
  const pick = elapsedMs(picked, read(at.dispatchedUs));
  const upstream = elapsedMs(read(at.sentUs), read(at.firstByteUs));
  return `queue;dur=${queue}, pick;dur=${pick}, upstream;dur=${upstream}`;
}

/** Milliseconds to three digits; 0 when one end has not happened. */
function elapsedMs(fromUs: number, toUs: number): number {
  if (fromUs === 0 || toUs <= fromUs) return 0;
  return Math.round(toUs - fromUs) / 1000;
}

export const eventStreamType = 'text/event-stream';

/** Headers that keep what stands between us and the client from holding events back. */
export function pushStreamHeaders(headers: string[]): void {
  headers.push('x-accel-buffering', 'no');
  if (!headers.includes('cache-control')) headers.push('cache-control', 'no-cache');
}

export function isEventStream(headers: readonly string[]): boolean {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i] === 'content-type') {
      return (headers[i + 1] as string).toLowerCase().startsWith(eventStreamType);
    }
  }
  return false;
}
