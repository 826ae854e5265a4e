/**
 * Error entries as bytes on the wire: OpenAI and Anthropic bodies and the last event of a stream.
 * Pure; any thread; never blocks.
 *
 * Bodies without a message or param of their own are built once and shared: callers must not write
 * into them. Text that came from the network reaches a body through JSON.stringify only.
 */
import type { ErrorEntry } from './catalogue.ts';

const encoder = new TextEncoder();

const constantBodies = new Map<number, Uint8Array>();
const constantEvents = new Map<number, Uint8Array>();

function errorJson(entry: ErrorEntry, message?: string, param?: string): string {
  return JSON.stringify({
    error: {
      message: message ?? entry.message,
      type: entry.type,
      param: param ?? entry.param,
      code: entry.code,
    },
  });
}

/** `{"error":{"message","type","param","code"}}`, the OpenAI shape. */
export function errorBody(entry: ErrorEntry, message?: string, param?: string): Uint8Array {
  if (message !== undefined || param !== undefined) {
    return encoder.encode(errorJson(entry, message, param));
  }
  return constant(constantBodies, entry, () => errorJson(entry));
}

/** The event that ends a broken stream: `data: {"error":{...}}`. No `[DONE]` follows it. */
export function sseErrorEvent(entry: ErrorEntry, message?: string): Uint8Array {
  if (message !== undefined) return encoder.encode(`data: ${errorJson(entry, message)}\n\n`);
  return constant(constantEvents, entry, () => `data: ${errorJson(entry)}\n\n`);
}

/** `{"type":"error","error":{"type","message"},"request_id"}`, the Anthropic shape. */
export function anthropicErrorBody(
  entry: ErrorEntry,
  message?: string,
  requestId?: string,
): Uint8Array {
  return encoder.encode(anthropicJson(entry, message, requestId));
}

/** The event that ends a broken Anthropic stream. */
export function anthropicErrorEvent(
  entry: ErrorEntry,
  message?: string,
  requestId?: string,
): Uint8Array {
  return encoder.encode(`event: error\ndata: ${anthropicJson(entry, message, requestId)}\n\n`);
}

/** Anthropic clients know 529 where others know 503. */
export function anthropicStatus(entry: ErrorEntry): number {
  return entry.status === 503 ? 529 : entry.status;
}

function anthropicJson(entry: ErrorEntry, message?: string, requestId?: string): string {
  return JSON.stringify({
    type: 'error',
    error: { type: anthropicType(entry.status), message: message ?? entry.message },
    ...(requestId === undefined ? {} : { request_id: requestId }),
  });
}

function anthropicType(status: number): string {
  switch (status) {
    case 401:
      return 'authentication_error';
    case 403:
      return 'permission_error';
    case 404:
      return 'not_found_error';
    case 413:
      return 'request_too_large';
    case 429:
      return 'rate_limit_error';
    case 503:
      return 'overloaded_error';
    case 504:
      return 'timeout_error';
    default:
      return status < 500 ? 'invalid_request_error' : 'api_error';
  }
}

function constant(
  cache: Map<number, Uint8Array>,
  entry: ErrorEntry,
  text: () => string,
): Uint8Array {
  let bytes = cache.get(entry.number);
  if (bytes === undefined) {
    bytes = encoder.encode(text());
    cache.set(entry.number, bytes);
  }
  return bytes;
}
