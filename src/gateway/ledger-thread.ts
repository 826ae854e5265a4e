/**
 * The ledger as the main thread sees it: a spare thread that is told of budgets, and that clients wait for at
 * the start of the gateway alone.
 *
 * While there is none, events stay in their files and budgets as they are.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/schema.ts';
import { configuredSinks } from '../config/sinks.ts';
import type { BudgetRow } from '../config/tenants.ts';
import { SpareThread, type SpareThreadParts } from './spare-thread.ts';

/** Where usage events have a file, and a sink or a price makes somebody want to know of them. */
export const wantsLedger = ({ usage, models }: Config): boolean =>
  usage.file !== '' &&
  (configuredSinks(usage).length > 0 || models.some(({ price }) => price !== undefined));

/** Files of a gigabyte are summed up in some seconds. */
const startMsMax = 20_000;
/** It answers between two reads of a file; whoever revokes a key does not wait for longer. */
const answerMsMax = 2000;

export class LedgerThread extends SpareThread {
  constructor(parts: SpareThreadParts) {
    super('ledger', parts);
  }

  /** Resolves once it knows what is spent, or when that takes too long or fails. Never rejects. */
  async ready(): Promise<void> {
    const ready = this.handle?.ready().catch(() => 0); // its death is heard of
    await Promise.race([ready, sleep(startMsMax, undefined, { ref: false })]);
  }

  /**
   * Resolves once it goes by them, or is ended because it does not say so in time: its successor knows them
   * from its start.
   */
  async setBudgets(budgets: readonly BudgetRow[]): Promise<void> {
    const thread = this.handle;
    if (thread === undefined) return;
    const answered = thread.applyBudgets(budgets).then(() => true);
    const late = sleep(answerMsMax, false, { ref: false });
    if (!(await Promise.race([answered, late]))) thread.kill('it did not take new budgets in time');
  }
}
