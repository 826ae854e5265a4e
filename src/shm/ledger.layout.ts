/**
 * What the ledger knows of usage: how far each sink is behind, and what tenants with a budget have spent.
 *
 * The ledger writes, acceptors read `refusedUntilMs` at every request of such a tenant, the main thread the
 * rest. It is as exact as the ledger is quick: a request that is over counts within a second. While the
 * ledger is dead the words stay as they are; a budget that is spent still ends with its day or month. What
 * other gateways have spent of a shared budget is a second older, while the store answers.
 */
import { defineLayout, f64, rows, word } from './layout.ts';

export const LedgerLayout = defineLayout('ledger', {
  isStoreUp: word('ledger', '1 while it hears from the store what other gateways have spent.'),
  sink: rows({
    waiting: f64('ledger', 'Events in the usage files that it does not have for sure.'),
    oldestMs: f64('ledger', 'Wall clock at which the oldest of them came; 0: there is none.'),
  }),
  tenant: rows({
    refusedUntilMs: f64(
      'ledger',
      'Wall clock until which its requests are refused; 0: they are not.',
    ),
    isUnknown: f64('ledger', '1: it is refused because nobody knows what others have spent.'),
    daySpent: f64(
      'ledger',
      'Spent in this day of UTC, in billionths of the currency, by all who share it.',
    ),
    monthSpent: f64(
      'ledger',
      'Spent in this month of UTC, in billionths of the currency, by all who share it.',
    ),
  }),
});
