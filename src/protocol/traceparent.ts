/**
 * W3C Trace Context: `traceparent` read and written, ids made, the choice by trace id. Any thread; pure
 * but for the random bytes, which are drawn from the system 4 KiB at a time.
 */
import { Buffer } from 'node:buffer';
import { randomFillSync } from 'node:crypto';

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const zeroTrace = '0'.repeat(32);
const zeroSpan = '0'.repeat(16);
export const sampledFlag = 1;
/** Flags of version 00, those of level 2 included: sampled, random trace id. */
const knownFlags = 3;
const version = '00';
const traceIdDigits = 32;
const spanIdDigits = 16;

export interface Traceparent {
  readonly traceId: string;
  readonly spanId: string;
  readonly flags: number;
}

/** A `traceparent` of version 00 or a later one; undefined for what is none. */
export function parseTraceparent(value: string): Traceparent | undefined {
  if (value.length < 55 || value.length > 256) return undefined;
  const match = pattern.exec(value);
  if (match === null) return undefined;
  const [, of, traceId, spanId, flags, rest] = match as unknown as [string, ...string[]];
  if (of === 'ff' || (of === version && rest !== undefined)) return undefined;
  if (traceId === zeroTrace || spanId === zeroSpan) return undefined;
  const bits = Number.parseInt(flags as string, 16) & knownFlags;
  return { traceId: traceId as string, spanId: spanId as string, flags: bits };
}

/** Written as version 00, which everybody reads. */
export const traceparentOf = ({ traceId, spanId, flags }: Traceparent): string =>
  `${version}-${traceId}-${spanId}-0${flags}`;

export const isSampled = ({ flags }: Traceparent): boolean => (flags & sampledFlag) !== 0;

/** The last 56 bits of a trace id are random; of these the first 32 decide here. */
const decidingFrom = 18;
const decidingTo = 26;
const decidingSpace = 2 ** 32;

/** Takes the share `ratio` of all trace ids, the same ones as every OpenTelemetry sampler by probability. */
export const isChosen = (traceId: string, ratio: number): boolean =>
  Number.parseInt(traceId.slice(decidingFrom, decidingTo), 16) >=
  Math.round((1 - ratio) * decidingSpace);

export const newTraceId = (): string => newId(traceIdDigits);
export const newSpanId = (): string => newId(spanIdDigits);

/** Of a trace of its own, which is not sampled. */
export const unsampledTraceparent = (): string => `${version}-${newTraceId()}-${newSpanId()}-00`;

const pool = Buffer.allocUnsafeSlow(4096);
/** The pool as digits: to cut an id out of them costs less than to write one. */
let digits = '';
let digitsUsed = 0;

function newId(length: number): string {
  if (digitsUsed + length > digits.length) {
    digits = randomFillSync(pool).toString('hex');
    digitsUsed = 0;
  }
  const start = digitsUsed;
  digitsUsed += length;
  const id = digits.slice(start, digitsUsed);
  // A first digit that is not 0 makes an id of zeros impossible, and costs nothing of what decides.
  return id.startsWith('0') ? `1${id.slice(1)}` : id;
}
