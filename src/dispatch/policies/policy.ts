/**
 * What a policy is: a choice among candidates by numbers and its own state.
 *
 * No clock, no shared memory, no allocation per pick; randomness is handed in. One instance serves
 * one model. The candidates are already filtered: healthy, active, not paused, below max_in_flight,
 * weight above 0.
 *
 * Each policy has its own scan loop. One loop that calls a score function for each candidate costs as much
 * while one policy runs, and three times as much once two do: V8 no longer inlines the call.
 */
import type { Prng } from '../../lib/prng.ts';
import type { Candidates } from '../candidates.ts';
import type { RingMember } from '../hash-ring.ts';

/** The request to be placed. A record its writer reuses. */
export interface PickRequest {
  promptTokens: number;
  /** Tokens the answer is expected to have. */
  outputTokens: number;
  /** Tokens of the prompt that candidate i holds already; only for policies that need the prefix. */
  readonly matched: Int32Array;
  /** Hash of the session, else of the head of the prompt; 0 0 for none. */
  key0: number;
  key1: number;
}

export interface Policy {
  /** Looking prompts up in the prefix index costs a microsecond: only who asks for it pays. */
  readonly needsPrefix?: boolean;
  /** Index into the candidates, or NONE when there are none. */
  pick(candidates: Candidates, request: PickRequest): number;
  /** The replicas of the model have changed; called before the first pick and at each change. */
  setMembers?(members: readonly RingMember[]): void;
}

/** A candidate as the policy saw it, with the request it was weighed for. */
export interface Weighed {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly matchedTokens: number;
  readonly inFlight: number;
  readonly weight: number;
  readonly pendingTokens: number;
  readonly contextTokens: number;
  readonly prefillUs: number;
  readonly residentUs: number;
}

/** The score of a candidate and the terms it is made of, for a person to read; units in the names. */
export interface Score {
  readonly score: number;
  readonly terms: Readonly<Record<string, number>>;
}

/** Off the hot path: what pick() computes for one candidate. */
export type Terms = (of: Weighed) => Score;

export type PolicyFactory = (random: Prng) => Policy;
