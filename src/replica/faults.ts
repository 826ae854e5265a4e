/**
 * The faults of one response, read from a text such as `reset-after=3;mid-event`. Pure.
 *
 * The same text comes as a prompt tag `[[fault:…]]` (or `[[fault@NAME:…]]`, for the replica of that
 * name only), as the header `x-replica-fault`, or as a rule on the control port. An unknown fault is
 * an error, never ignored: a test must not pass because its fault did not happen.
 * Positions count tokens of the whole answer, so a continuation that starts past one is untouched.
 */
import { TOO_LONG } from './errors.ts';
import { SSE_VARIANTS } from './sse-variants.ts';

export type CutKind = 'fin' | 'reset';
export type StallAt = 'headers' | 'body' | number;
export type LengthFault = (typeof LENGTH_FAULTS)[number];

export interface FaultPlan {
  /** Answers this status with an error body. */
  status?: number;
  /** `retry-after` in seconds, with `retry-after-ms`, on `status`. */
  retryAfterS?: number;
  delayMs?: number;
  /** Multiplies every delay of the profile. */
  slow?: number;
  stall?: StallAt;
  cut?: { kind: CutKind; at: StallAt };
  /** Cuts after this many bytes of the response, head included. */
  cutByte?: { kind: CutKind; at: number };
  /** A cut or stall leaves the first half of the next event behind. */
  midEvent?: boolean;
  holdAfter?: number;
  /** Ends the process at this position. */
  killAfter?: number;
  framing?: 'chunked' | 'length' | 'close';
  length?: LengthFault;
  /** Announces a chunk, sends half of it, closes. */
  truncateChunk?: number;
  /** Sends bytes that are no chunk and no event, closes. */
  garbage?: number;
  /** One of SSE_VARIANTS, on the event at `sseAt`. */
  sse?: string;
  sseAt?: number;
  /** One event of this many bytes of data. */
  bigEvent?: number;
  /** 200 with an error body, or as first event of a stream. */
  okError?: boolean;
  errorEvent?: number;
  refuseContinuation?: boolean;
  /** Says in the words of this engine that the prompt is too long: one of TOO_LONG. */
  tooLong?: string;
  /** The model refuses; or a filter has let nothing pass, as refusals are where an API has no place for them. */
  refusal?: boolean;
  filtered?: boolean;
  /** A flag says that the answer is of low confidence. */
  unsure?: 'header' | 'field';
  /** Hundredths below 0: logprob of each token of a whole answer. */
  logprob?: number;
  /** Does not know `return_token_ids`. */
  noTokenIds?: boolean;
  /** Does not know `stream_options`. */
  noUsage?: boolean;
  /** One payload byte, then this pause; each byte is a chunk of its own. */
  dripMs?: number;
  /** One byte of the framed body, then this pause. */
  dripRawMs?: number;
  /** Pauses once after this many payload bytes; what follows is another chunk. */
  split?: number;
  /** Pauses once after this many bytes of the whole response, head included. */
  splitRaw?: number;
}

export const LENGTH_FAULTS = [
  'duplicate',
  'invalid',
  'negative',
  'with-chunked',
  'short',
  'long',
] as const;
const FRAMINGS = ['chunked', 'length', 'close'] as const;
const BIG_EVENT_BYTES_MAX = 64 * 1024 * 1024;
const NUMBER_MAX = 1_000_000_000;

type Reader = (plan: FaultPlan, value: string) => boolean;

const READERS: Record<string, Reader> = {
  status: whole('status', 200, 599),
  'retry-after': whole('retryAfterS', 0, 86_400),
  delay: whole('delayMs', 0, NUMBER_MAX),
  slow: whole('slow', 0, 1_000_000),
  stall: (plan, value) => {
    const at = readStallAt(value);
    if (at !== undefined) plan.stall = at;
    return at !== undefined;
  },
  'stall-after': whole('stall', 0, NUMBER_MAX),
  reset: cutAt('reset'),
  fin: cutAt('fin'),
  'reset-after': cutAt('reset'),
  'fin-after': cutAt('fin'),
  'reset-byte': cutByte('reset'),
  'fin-byte': cutByte('fin'),
  'mid-event': flag('midEvent'),
  'hold-after': whole('holdAfter', 0, NUMBER_MAX),
  'kill-after': whole('killAfter', 0, NUMBER_MAX),
  framing: oneOf('framing', FRAMINGS),
  length: oneOf('length', LENGTH_FAULTS),
  'truncate-chunk': whole('truncateChunk', 0, NUMBER_MAX),
  garbage: whole('garbage', 0, NUMBER_MAX),
  sse: oneOf('sse', Object.keys(SSE_VARIANTS)),
  'sse-at': whole('sseAt', 0, NUMBER_MAX),
  'big-event': whole('bigEvent', 1, BIG_EVENT_BYTES_MAX),
  'ok-error': flag('okError'),
  'error-event': whole('errorEvent', 0, NUMBER_MAX),
  'refuse-continuation': flag('refuseContinuation'),
  'too-long': oneOf('tooLong', Object.keys(TOO_LONG)),
  refusal: flag('refusal'),
  filtered: flag('filtered'),
  unsure: oneOf('unsure', ['header', 'field']),
  logprob: whole('logprob', 0, 100_000),
  'no-token-ids': flag('noTokenIds'),
  'no-usage': flag('noUsage'),
  drip: whole('dripMs', 0, NUMBER_MAX),
  'drip-raw': whole('dripRawMs', 0, NUMBER_MAX),
  split: whole('split', 0, NUMBER_MAX),
  'split-raw': whole('splitRaw', 0, NUMBER_MAX),
};

/** Names of all faults, for messages and documentation. */
export const FAULT_NAMES: readonly string[] = Object.keys(READERS);

/** Adds the faults of `text` to `plan`; the answer is a message when one cannot be read. */
export function readFaults(text: string, plan: FaultPlan): string | undefined {
  for (const item of text.split(/[;,]/)) {
    const equals = item.indexOf('=');
    const name = (equals < 0 ? item : item.slice(0, equals)).trim();
    const value = equals < 0 ? '' : item.slice(equals + 1).trim();
    const read = Object.hasOwn(READERS, name) ? READERS[name] : undefined;
    if (read === undefined) return `unknown fault ${name}; use ${FAULT_NAMES.join(' ')}`;
    if (!read(plan, value)) return `fault ${name}: bad value ${value}`;
  }
  return undefined;
}

/** Adds the faults that a prompt's tags ask of the replica called `replicaName`. */
export function readFaultTags(
  prompt: string,
  replicaName: string,
  plan: FaultPlan,
): string | undefined {
  for (const match of prompt.matchAll(/\[\[fault(?:@([\w.:-]{1,64}))?:([^\]]{0,256})\]\]/g)) {
    if (match[1] !== undefined && match[1] !== replicaName) continue;
    const problem = readFaults(match[2] ?? '', plan);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

type KeysOf<V> = { [K in keyof FaultPlan]-?: V extends FaultPlan[K] ? K : never }[keyof FaultPlan];

function whole(key: KeysOf<number>, min: number, max: number): Reader {
  return (plan, value) => {
    if (!/^\d{1,10}$/.test(value)) return false;
    const number = Number(value);
    if (number < min || number > max) return false;
    Object.assign(plan, { [key]: number });
    return true;
  };
}

function flag(key: KeysOf<boolean>): Reader {
  return (plan, value) => {
    if (value !== '') return false;
    Object.assign(plan, { [key]: true });
    return true;
  };
}

function oneOf(key: keyof FaultPlan, values: readonly string[]): Reader {
  return (plan, value) => {
    if (!values.includes(value)) return false;
    Object.assign(plan, { [key]: value });
    return true;
  };
}

function cutAt(kind: CutKind): Reader {
  return (plan, value) => {
    const at = readStallAt(value);
    if (at !== undefined) plan.cut = { kind, at };
    return at !== undefined;
  };
}

function cutByte(kind: CutKind): Reader {
  return (plan, value) => {
    if (!/^\d{1,9}$/.test(value)) return false;
    plan.cutByte = { kind, at: Number(value) };
    return true;
  };
}

function readStallAt(value: string): StallAt | undefined {
  if (value === 'headers' || value === 'body') return value;
  return /^\d{1,9}$/.test(value) ? Number(value) : undefined;
}
