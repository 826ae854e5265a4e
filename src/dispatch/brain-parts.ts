/** The parts of a brain and how they hang together. Pure. */
import { createPrng } from '../lib/prng.ts';
import { Attempts } from './attempts.ts';
import { Batching, type Sender } from './batching.ts';
import type { BrainConfig, DecisionSink, RunningAttempt } from './decisions.ts';
import { Door } from './door.ts';
import { Fallbacks } from './fallbacks.ts';
import { Fleet } from './fleet.ts';
import { Hedges } from './hedges.ts';
import { Lanes } from './lanes.ts';
import { Passing } from './passing.ts';
import { Pins } from './pins.ts';
import { Placement } from './placement.ts';
import { Prefills } from './prefills.ts';
import { Quotas, type QuotasParts } from './quotas.ts';
import { Refusing } from './refusing.ts';
import { Requests } from './requests.ts';
import { Retries } from './retries.ts';
import { Unserved } from './unserved.ts';

export interface BrainParts {
  readonly fleet: Fleet;
  readonly requests: Requests;
  readonly lanes: Lanes;
  readonly passing: Passing;
  readonly pins: Pins;
  readonly placement: Placement;
  readonly prefills: Prefills;
  readonly attempts: Attempts;
  readonly door: Door;
  readonly batching: Batching;
  readonly retries: Retries;
  readonly fallbacks: Fallbacks;
  readonly refusing: Refusing;
  readonly hedges: Hedges;
  readonly quotas: Quotas;
  readonly unserved: Unserved;
}

/** `decided` is told what the store of limits says; `sender` is how a member of a batch goes on. */
export function createParts(
  config: BrainConfig,
  sink: DecisionSink,
  decided: QuotasParts['decided'],
  sender: Sender,
): BrainParts {
  const { slots, limits, sharedLimits: shared } = config;
  const fleet = new Fleet(config);
  const requests = new Requests(slots);
  const lanes = new Lanes(requests, config, (slot) => placement.cachedTokens(slot));
  const passing = new Passing(fleet, lanes);
  const pins = new Pins({ requests, fleet, lanes }, sink);
  const placement = new Placement(config, requests, fleet, passing, pins);
  const prefills = new Prefills(slots, requests, fleet);
  const retries = new Retries(config, requests, fleet, pins);
  const parts = { requests, fleet, lanes };
  const choosing = { ...parts, placement, retryBudget: retries.budget };
  const attempts = new Attempts({ ...choosing, prefills }, sink);
  const hedges = new Hedges(config, { ...choosing, passing, attempts });
  const quotas = new Quotas({ ...choosing, limits, shared, sink, decided });
  const refusing = new Refusing({ ...parts, retries, quotas }, sink);
  const random = createPrng(config.seed);
  const door = new Door({ ...parts, retries, pins, random }, config.queueMax);
  const batching = new Batching(slots, { ...parts, passing }, sink, sender);
  const fallbacks = new Fallbacks(config, requests, sink);
  const unserved = new Unserved({ ...parts, retries });
  return {
    ...{ fleet, requests, lanes, passing, pins, placement, prefills, attempts },
    ...{ door, batching, retries, fallbacks, refusing, hedges, quotas, unserved },
  };
}

/** Takes over an attempt that runs already. */
export function restoreParts(parts: BrainParts, attempt: RunningAttempt): void {
  const { arrival, hasToken } = attempt;
  parts.attempts.restore(attempt);
  parts.fallbacks.open(arrival);
  parts.retries.restore(attempt);
  parts.quotas.restore(arrival, hasToken);
}

/** Recounts everything from the requests. */
export function assertPartsExact(parts: BrainParts): void {
  const { fleet, requests, lanes, retries, attempts, batching, fallbacks } = parts;
  fleet.assertExact(requests);
  for (const part of [lanes, retries, attempts, batching, fallbacks]) part.assertExact();
}
