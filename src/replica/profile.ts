/**
 * How fast a simulated replica answers. Pure.
 *
 *   instant                      everything at once
 *   uniform:8ms-24ms             a whole answer after a uniform delay; a stream is four tokens, 2 ms apart
 *   tokens:ttft=200ms,itl=20ms   first token after ttft, then one every itl; a whole answer at its last token
 */

import type { Prng } from '../lib/prng.ts';
import { parseDuration } from '../lib/quantity.ts';

export interface Profile {
  readonly name: string;
  readonly firstTokenMsMin: number;
  readonly firstTokenMsMax: number;
  readonly interTokenMs: number;
  /** Whether the head of a stream goes out at once, as uvicorn does, or with the first token. */
  readonly headFirst: boolean;
  /** Whether a whole answer waits for all its tokens, or for the first only. */
  readonly wholeWaitsForTokens: boolean;
  /** Length of an answer that nothing cuts; 0 means from the prompt. */
  readonly naturalLength: number;
}

const UNIFORM_STREAM_TOKENS = 4;
const UNIFORM_STREAM_GAP_MS = 2;
const PROFILE_NAMES = 'instant, uniform:MIN-MAX, tokens:ttft=T,itl=T';

/** The profile of a name such as `uniform:8ms-24ms`; a string says why there is none. */
export function parseProfile(name: string): Profile | string {
  if (name === 'instant') return profile(name, 0, 0, 0);
  const uniform = /^uniform:([^-]+)-([^-]+)$/.exec(name);
  if (uniform !== null) {
    const min = parseDuration(uniform[1] ?? '');
    const max = parseDuration(uniform[2] ?? '');
    if (min === undefined || max === undefined) return `profile ${name}: bad duration`;
    if (min > max) return `profile ${name}: the first delay is above the second`;
    return {
      ...profile(name, min, max, UNIFORM_STREAM_GAP_MS),
      headFirst: false,
      wholeWaitsForTokens: false,
      naturalLength: UNIFORM_STREAM_TOKENS,
    };
  }
  const tokens = /^tokens:ttft=([^,]+),itl=([^,]+)$/.exec(name);
  if (tokens !== null) {
    const ttft = parseDuration(tokens[1] ?? '');
    const itl = parseDuration(tokens[2] ?? '');
    if (ttft === undefined || itl === undefined) return `profile ${name}: bad duration`;
    return profile(name, ttft, ttft, itl);
  }
  if (name.startsWith('engine:')) return `profile ${name} is not available; use ${PROFILE_NAMES}`;
  return `unknown profile ${name}; use ${PROFILE_NAMES}`;
}

/** Draws the time to the first token of one request. */
export function firstTokenMs(of: Profile, random: Prng): number {
  const span = of.firstTokenMsMax - of.firstTokenMsMin;
  if (span === 0) return of.firstTokenMsMin;
  return of.firstTokenMsMin + (random.next() / 2 ** 32) * span;
}

function profile(name: string, min: number, max: number, interTokenMs: number): Profile {
  return {
    name,
    firstTokenMsMin: min,
    firstTokenMsMax: max,
    interTokenMs,
    headFirst: true,
    wholeWaitsForTokens: true,
    naturalLength: 0,
  };
}
