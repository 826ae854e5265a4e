/** Whether the budget of a tenant lets it in, by the words that the ledger writes. Acceptor threads. */
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Holder } from './key-ring.ts';

/** Milliseconds until its day or month is over; 0: it may go on. */
export function budgetWaitMs({ ledger }: AcceptorState, holder: Holder | undefined): number {
  if (holder === undefined || holder.budgetRow < 0) return 0;
  const untilMs = ledger.readTenant(holder.budgetRow, 'refusedUntilMs');
  return untilMs === 0 ? 0 : Math.max(0, untilMs - Date.now());
}

/** Why its budget does not let it in. */
export function budgetRefusal(
  state: AcceptorState,
  holder: Holder | undefined,
): ErrorEntry | undefined {
  if (holder === undefined || holder.budgetRow < 0) return undefined;
  if (budgetWaitMs(state, holder) > 0) return errors.BUDGET_SPENT;
  const isUnknown = state.ledger.readTenant(holder.budgetRow, 'isUnknown') === 1;
  return isUnknown ? errors.LIMITS_UNKNOWN : undefined;
}
