/**
 * What a policy is: a choice among candidates by numbers and its own state.
 *
 * No clock, no shared memory, no allocation per pick; randomness is handed in. One instance serves
 * one lane. The candidates are already filtered: healthy, active, not paused, below max_in_flight,
 * weight above 0.
 */
import type { Prng } from '../../lib/prng.ts';
import type { Candidates } from '../candidates.ts';

export interface Policy {
  /** Index into the candidates, or NONE when there are none. */
  pick(candidates: Candidates): number;
}

export type PolicyFactory = (random: Prng) => Policy;
