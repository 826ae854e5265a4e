/**
 * Budgets of tenants: their rows in the region of the ledger, and what is spent of them, for people. Main
 * thread; the ledger alone writes the words, the acceptors refuse by them.
 */
import { tenantsMax } from '../config/capacities.ts';
import type { Config } from '../config/schema.ts';
import type { BudgetRow } from '../config/tenants.ts';
import { fromBillionths } from '../lib/price.ts';
import { LedgerTable } from '../shm/ledger.ts';
import { NamedRows } from './named-rows.ts';

type TenantConfig = Config['tenants'][number];
type FailureMode = Config['limits']['failure_mode'];

export class Budgets {
  readonly #table: LedgerTable;
  readonly #rows = new NamedRows(tenantsMax);
  readonly #failureMode: FailureMode;
  #budgets: readonly BudgetRow[] = [];

  constructor(region: SharedArrayBuffer, failureMode: FailureMode) {
    this.#table = new LedgerTable(region);
    this.#failureMode = failureMode;
  }

  /** As the ledger is told of them. */
  get rows(): readonly BudgetRow[] {
    return this.#budgets;
  }

  /** -1: the tenant has none. */
  readonly rowOf = (tenant: string): number => this.#rows.rowOf(tenant);

  apply(tenants: readonly TenantConfig[]): void {
    const limited = tenants.filter(({ budget: { day, month } }) => day > 0 || month > 0);
    this.#rows.assign(new Set(limited.map(({ name }) => name)), () => {});
    this.#budgets = limited.map(({ name: tenant, budget: { day, month }, failure_mode }) => {
      const isClosed = (failure_mode ?? this.#failureMode) === 'closed';
      return { tenant, row: this.rowOf(tenant), isClosed, day, month };
    });
  }

  /** Null: it has none. */
  view({ name, budget }: TenantConfig): unknown {
    const row = this.rowOf(name);
    if (row < 0) return null;
    const of = (most: number, spent: number): unknown => {
      return { budget: most === 0 ? null : most, spent: fromBillionths(spent) };
    };
    const untilMs = this.#table.readTenant(row, 'refusedUntilMs');
    return {
      day: of(budget.day, this.#table.readTenant(row, 'daySpent')),
      month: of(budget.month, this.#table.readTenant(row, 'monthSpent')),
      refused_until: untilMs > Date.now() ? new Date(untilMs).toISOString() : null,
    };
  }
}
