/**
 * How fast a simulated replica answers. Pure.
 *
 *   instant                      everything at once
 *   uniform:8ms-24ms             a whole answer after a uniform delay; a stream is four tokens, 2 ms apart
 *   tokens:ttft=200ms,itl=20ms   first token after ttft, then one every itl; a whole answer at its last token
 *   engine:8b-h100,speed=10      as the modelled engine has its tokens, ten times as fast; speed is optional
 */

import type { Prng } from '../lib/prng.ts';
import { parseDuration } from '../lib/quantity.ts';
import { ENGINE_MODELS, type EngineModel } from './engine/engine-model.ts';

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
  /** Set when an engine model says when tokens are there; the delays above are 0 then. */
  readonly engine: EngineProfile | undefined;
}

export interface EngineProfile {
  readonly model: EngineModel;
  /** Model time passes so many times as fast as the clock. */
  readonly speed: number;
}

const UNIFORM_STREAM_TOKENS = 4;
const UNIFORM_STREAM_GAP_MS = 2;
const PROFILE_NAMES = 'instant, uniform:MIN-MAX, tokens:ttft=T,itl=T, engine:MODEL[,speed=N]';
/** Above it a whole second of steps falls into one timer tick. */
const SPEED_MAX = 1000;

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
  const engine = /^engine:([^,]*)(?:,speed=(\d{1,4}(?:\.\d{1,3})?))?$/.exec(name);
  if (engine !== null) {
    const model = ENGINE_MODELS.get(engine[1] ?? '');
    const speed = Number(engine[2] ?? 1);
    if (model === undefined) {
      return `profile ${name}: unknown engine; use ${[...ENGINE_MODELS.keys()].join(' or ')}`;
    }
    if (speed <= 0 || speed > SPEED_MAX) {
      return `profile ${name}: the speed must be above 0 and at most ${SPEED_MAX}`;
    }
    return { ...profile(name, 0, 0, 0), engine: { model, speed } };
  }
  return `unknown profile ${name}; use ${PROFILE_NAMES}`;
}

/** Why a profile cannot run so many requests at a time; undefined when it can. */
export function maxNumSeqsProblem(of: Profile, maxNumSeqs: number): string | undefined {
  if (of.engine === undefined) return undefined;
  const most = of.engine.model.stepTokensMax - 1; // a step is a token of each, and a prefill
  if (maxNumSeqs >= 1 && maxNumSeqs <= most) return undefined;
  return `profile ${of.name}: max-num-seqs must be 1 to ${most}`;
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
    engine: undefined,
  };
}
