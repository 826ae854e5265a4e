/** The end of an attempt of which no event tells, as the slot's row does. Scheduler thread. */
import { Ended, type Release, Verdict } from '../dispatch/decisions.ts';
import { attemptOf, generationOf, type RequestSlots } from '../shm/request-slots.ts';
import { retryRuleOf } from './refusals.ts';

export function lostEnd(
  slots: RequestSlots,
  slot: number,
  lease: number,
  settled: boolean,
): Release {
  const error = slots.words[slots.row(slot) + slots.at.error] as number;
  return {
    slot,
    generation: generationOf(lease),
    attempt: attemptOf(lease),
    hedge: slots.isHedgeAlone(slot),
    busy: false,
    verdict: Verdict.none,
    ended: Ended.lost,
    retryAfterMs: 0,
    error,
    retry: retryRuleOf(error),
    settled,
    continues: slots.isContinued(slot),
    promptTokens: -1,
    completionTokens: -1,
  };
}
