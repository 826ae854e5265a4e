/**
 * What a replica was chosen from: the candidates as they were, and who was left out and why. Types and
 * names only.
 */
import type { Candidates } from './candidates.ts';
import type { PickRequest } from './policies/policy.ts';

/** Why a member of the model is no candidate. Each is counted once, under the first that holds. */
export const Filter = {
  /** Draining, unhealthy or of weight 0. */
  notRoutable: 0,
  paused: 1,
  /** At its max_in_flight. */
  full: 2,
  /** Has so much to prefill that requests wait in the gateway instead. */
  held: 3,
  /** Its breaker is open, or half open with a request that tries it (breaker.ts). */
  ejected: 4,
  /** Its rate limits are used up (rate-limit.ts). */
  limited: 5,
  /** Has no room for this request in its KV cache. */
  noKvRoom: 6,
  /** Failed this request before. */
  failedBefore: 7,
  /** Does not have the adapter of this request. */
  noAdapter: 8,
  /** Kept for a request that waits before this one (passing.ts). */
  kept: 9,
  /** Takes no batches, or is not the one that the batch of this request goes to. */
  notOfBatch: 10,
  /** Is back, and has had its part while others can take the request (slow-start.ts). */
  starting: 11,
  /** Runs the request of this hedge already, or failed it before. */
  notForHedge: 12,
  /** Does not keep what this request goes on with (pins.ts). */
  notPinned: 13,
} as const;
export type Filter = (typeof Filter)[keyof typeof Filter];

export const filterNames = Object.keys(Filter) as readonly (keyof typeof Filter)[];

/** A record its writer reuses. */
export interface Choice {
  /** What the policy saw; valid until the request is counted. */
  readonly candidates: Candidates;
  /** The candidate it picked. */
  readonly index: number;
  readonly request: PickRequest;
  /** `request.matched` is of this request; else nobody asked the prefix index. */
  readonly isMatched: boolean;
  /** The ring of sessions picked, not the policy of the model. */
  readonly isBySession: boolean;
  /** There was nothing to pick: only this one could serve it. */
  readonly isPinned: boolean;
  /** Replicas of the model. */
  readonly members: number;
  /** How many were left out, by Filter; one that is reserved and was chosen all the same is among them. */
  readonly filtered: Int32Array;
}
