/**
 * What went wrong with an attempt, as the numbers that cross threads. Pure; forwarder threads.
 *
 * The table of RELIABILITY 3.3: an error of undici or a status of the replica becomes an entry of
 * the error catalogue (which knows whether another replica may be asked) and an outcome class
 * (which routing learns from). Nothing here decides about a retry.
 */
import { errorOf, errors } from '../errors/catalogue.ts';
import { isRateLimit } from '../protocol/http-rules.ts';
import { isKeyHeader } from '../protocol/own-headers.ts';
import { Outcome } from '../shm/rings.layout.ts';
import type { AnswerHeaders } from './answer-head.ts';
import { forbiddenAddressCode } from './replica-lookup.ts';

export interface Failure {
  readonly error: number;
  readonly outcome: Outcome;
}

/**
 * What the members of a batch are told of what has ended it. One call has failed: the first says so of
 * the replica, the rest say nothing; and since any one of them may be the cause, each is asked again
 * alone, unless nothing was sent or nothing can follow.
 */
export function batchFailures(cause: Failure, wasSent: boolean): { first: Failure; rest: Failure } {
  const { error, outcome } = cause;
  if (errorOf(error).retry === 'never') return { first: cause, rest: cause };
  const asAlone = outcome === Outcome.clientError || !wasSent ? error : errors.BATCH_FAILED.number;
  const first = { error: outcome === Outcome.busy ? error : asAlone, outcome };
  return { first, rest: { error: asAlone, outcome: Outcome.cancelled } };
}

/** How far an attempt had come. */
export const Stage = { connecting: 0, sent: 1, head: 2, body: 3 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

const failure = (entry: { readonly number: number }, outcome: Outcome): Failure => ({
  error: entry.number,
  outcome,
});

export const failures = {
  refused: failure(errors.CONNECT_REFUSED, Outcome.dead),
  connectTimeout: failure(errors.CONNECT_TIMEOUT, Outcome.dead),
  dns: failure(errors.DNS_FAILED, Outcome.dead),
  tls: failure(errors.TLS_FAILED, Outcome.dead),
  /** Descriptors or ports of the gateway ran out: the replica is not to blame. */
  ownLimit: failure(errors.CONNECT_REFUSED, Outcome.busy),
  reset: failure(errors.RESET, Outcome.dead),
  closedEarly: failure(errors.CLOSED_EARLY, Outcome.dead),
  framing: failure(errors.RESPONSE_FRAMING, Outcome.dead),
  framingInBody: failure(errors.RESPONSE_FRAMING, Outcome.truncated),
  headersTimeout: failure(errors.HEADERS_TIMEOUT, Outcome.slow),
  firstTokenTimeout: failure(errors.FIRST_TOKEN_TIMEOUT, Outcome.slow),
  interTokenTimeout: failure(errors.INTER_TOKEN_TIMEOUT, Outcome.slow),
  truncated: failure(errors.TRUNCATED_STREAM, Outcome.truncated),
  eventTooLarge: failure(errors.EVENT_TOO_LARGE, Outcome.truncated),
  errorEvent: failure(errors.ERROR_EVENT, Outcome.dead),
  errorBody: failure(errors.ERROR_BODY, Outcome.dead),
  /** A 4xx to a batch, which may be the fault of one of its requests, or an answer past all bounds. */
  batchRefused: failure(errors.BATCH_REFUSED, Outcome.clientError),
  /** It may serve single requests well: `batching` is the mistake. */
  batchAnswer: failure(errors.BATCH_ANSWER, Outcome.clientError),
  contextOverflow: failure(errors.CONTEXT_OVERFLOW, Outcome.clientError),
  /** The replica did its work: what its model said is not wanted. */
  replyRefused: failure(errors.REPLY_REFUSED, Outcome.ok),
  replyUnsure: failure(errors.REPLY_UNSURE, Outcome.ok),
  continuationRefused: failure(errors.CONTINUATION_REFUSED, Outcome.clientError),
  tooLarge: failure(errors.RESPONSE_TOO_LARGE, Outcome.clientError),
  deadline: failure(errors.DEADLINE, Outcome.slow),
  /** The client allowed less time, or did not take the answer: the replica is not to blame. */
  clientDeadline: failure(errors.DEADLINE, Outcome.cancelled),
  clientGone: failure(errors.CLIENT_GONE, Outcome.cancelled),
  stopping: failure(errors.SHUTTING_DOWN, Outcome.cancelled),
  internal: failure(errors.INTERNAL, Outcome.cancelled),
  serverError: failure(errors.REPLICA_5XX, Outcome.dead),
  overloaded: failure(errors.REPLICA_OVERLOADED, Outcome.busy),
  rateLimited: failure(errors.REPLICA_RATE_LIMITED, Outcome.busy),
  unauthorized: failure(errors.REPLICA_UNAUTHORIZED, Outcome.clientError),
  forbidden: failure(errors.REPLICA_FORBIDDEN, Outcome.clientError),
  clientKey: failure(errors.CLIENT_KEY_REFUSED, Outcome.clientError),
} as const satisfies Record<string, Failure>;

/**
 * Nothing of the answer may be used when its head is a failure; undefined: pass the answer on.
 * `sent` are the names and values of the request; `hasOwnKey`: with a key of the gateway, not with
 * that of the client.
 */
export function failureOfHead(
  status: number,
  headers: AnswerHeaders,
  hasOwnKey: boolean,
  sent: readonly string[],
): Failure | undefined {
  if (status === 429 && !hasOwnKey && isLimitOfKey(headers) && hasKey(sent)) return undefined;
  return failureOfStatus(status, hasOwnKey);
}

/** An engine whose queue is full names no limits, whatever key came with the request: it is busy. */
const isLimitOfKey = (headers: AnswerHeaders): boolean => Object.keys(headers).some(isRateLimit);

const hasKey = (sent: readonly string[]): boolean =>
  sent.some((text, i) => i % 2 === 0 && isKeyHeader(text));

function failureOfStatus(status: number, hasOwnKey: boolean): Failure | undefined {
  if (status >= 200 && status < 300) return undefined;
  if (status === 429) return failures.rateLimited;
  if (status === 503) return failures.overloaded;
  if (status === 401 || status === 403) {
    if (!hasOwnKey) return failures.clientKey;
    return status === 401 ? failures.unauthorized : failures.forbidden;
  }
  // The replica gave up waiting for a request that the gateway has in full.
  if (status === 408) return failures.headersTimeout;
  // A redirect is not followed (it would choose an address for us), so it is no answer either.
  return status >= 400 && status < 500 ? undefined : failures.serverError;
}

interface CodedError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
}

/** The failure an error of undici or of its socket means for an attempt that had come to `stage`. */
export function failureOfError(error: unknown, stage: Stage): Failure {
  const { name, code, message } = (error ?? {}) as CodedError;
  // Its code is the reason of the parser where it has one, and undefined where it has none.
  if (name === 'HTTPParserError') {
    return stage === Stage.body ? failures.framingInBody : failures.framing;
  }
  if (typeof code !== 'string') return failures.internal;
  const known = byCode.get(code);
  if (known !== undefined) return stage === Stage.body ? known.inBody : known.before;
  if (code === 'UND_ERR_SOCKET') return socketFailure(message, stage);
  if (stage !== Stage.connecting || code.startsWith('UND_ERR')) return failures.internal;
  return isTlsCode(code) ? failures.tls : failures.refused;
}

const both = (same: Failure) => ({ before: same, inBody: same });
const byCode = new Map<string, { readonly before: Failure; readonly inBody: Failure }>([
  ['ECONNREFUSED', both(failures.refused)],
  ['UND_ERR_CONNECT_TIMEOUT', both(failures.connectTimeout)],
  ['ENOTFOUND', both(failures.dns)],
  ['EAI_AGAIN', both(failures.dns)],
  ['EAI_FAIL', both(failures.dns)],
  [forbiddenAddressCode, both(failures.dns)],
  ['EMFILE', both(failures.ownLimit)],
  ['ENFILE', both(failures.ownLimit)],
  ['EADDRNOTAVAIL', both(failures.ownLimit)],
  ['ECONNRESET', { before: failures.reset, inBody: failures.truncated }],
  ['EPIPE', { before: failures.reset, inBody: failures.truncated }],
  // Once a connection stands, this is the kernel giving up on a peer that does not acknowledge.
  ['ETIMEDOUT', { before: failures.connectTimeout, inBody: failures.truncated }],
  ['UND_ERR_HEADERS_OVERFLOW', both(failures.framing)],
  // A short body with `connection: close` ends so; a contradiction of lengths does before the body.
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', { before: failures.framing, inBody: failures.truncated }],
  // The pool was closed between pick and dispatch: the replica is gone.
  ['UND_ERR_DESTROYED', both(failures.refused)],
  ['UND_ERR_CLOSED', both(failures.refused)],
]);

/** `bad response`: unasked bytes or 100; `bad upgrade`: 101; else the peer closed the connection. */
function socketFailure(message: unknown, stage: Stage): Failure {
  if (message === 'bad response' || message === 'bad upgrade') return failures.framing;
  return stage === Stage.body || stage === Stage.head ? failures.truncated : failures.closedEarly;
}

function isTlsCode(code: string): boolean {
  return (
    code.startsWith('ERR_TLS') ||
    code.startsWith('ERR_SSL') ||
    code.startsWith('CERT_') ||
    code.startsWith('UNABLE_TO_') ||
    code === 'SELF_SIGNED_CERT_IN_CHAIN' ||
    code === 'DEPTH_ZERO_SELF_SIGNED_CERT' ||
    code === 'EPROTO'
  );
}

/** Longest wait taken from a replica: beyond it the advice is a mistake or an attack. */
const retryAfterMsMax = 600_000;

/** Milliseconds a replica asked us to wait: `retry-after-ms`, else seconds or a date; 0 for none. */
export function retryAfterMs(exact: string, coarse: string, wallMs: number): number {
  const wait = exact === '' ? coarseWait(coarse.trim(), wallMs) : Number(exact);
  return wait > 0 ? Math.ceil(Math.min(wait, retryAfterMsMax)) : 0; // NaN is not above 0
}

function coarseWait(text: string, wallMs: number): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  // Date.parse reads almost anything as a date; an HTTP date begins with the day of the week.
  return /^[A-Z][a-z]+, \d/.test(text) ? Date.parse(text) - wallMs : 0;
}
