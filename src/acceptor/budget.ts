/** Whether the budget of a tenant is spent, by the word that the ledger writes. Acceptor threads. */
import type { AcceptorState } from './acceptor-state.ts';
import type { Holder } from './key-ring.ts';

/** Milliseconds until its day or month is over; 0: it may go on. */
export function budgetWaitMs({ ledger }: AcceptorState, holder: Holder | undefined): number {
  if (holder === undefined || holder.budgetRow < 0) return 0;
  const untilMs = ledger.readTenant(holder.budgetRow, 'refusedUntilMs');
  return untilMs === 0 ? 0 : Math.max(0, untilMs - Date.now());
}
