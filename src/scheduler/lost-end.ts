/** The end of an attempt of which no event tells, as the slot's row does. Scheduler thread. */
import { Ended, type Release } from '../dispatch/decisions.ts';
import { createRelease } from '../dispatch/empty-records.ts';
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
    ...createRelease(),
    ...{ slot, generation: generationOf(lease), attempt: attemptOf(lease), settled },
    ...{ hedge: slots.isHedgeAlone(slot), continues: slots.isContinued(slot) },
    ...{ ended: Ended.lost, error, retry: retryRuleOf(error) },
  };
}
