/**
 * Budgets that gateways share: each tells the store what it has spent, and hears what all have. Ledger
 * thread, beside its ticks: nothing waits for the store but the start, and that not for long.
 *
 * Once a second all tenants with a budget have their turn, at every tick those that have nearly spent it.
 * What others have spent is kept while the store is away, in the state file too, for that store alone, and
 * never falls within a period: a store that lost its memory hears of it again within a second of each
 * gateway. What this gateway has spent is always exact. A gateway is its id, which is in its state file: two
 * processes of it, where one takes over, read the same files, so they tell the same. One that lost that file
 * has another id and tells only what it spends from then on (`before`): what is in its files it has told
 * under its old one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BudgetRow } from '../config/tenants.ts';
import { inBillionths } from '../lib/price.ts';
import { RefusedError } from '../redis/errors.ts';
import type { BudgetStore, PeriodAnswer } from './budget-store.ts';
import {
  endOfDay,
  endOfMonth,
  periodsOf,
  type SavedPeriods,
  type SavedSpending,
  Spending,
  type Spent,
} from './spending.ts';

export interface SavedGateway {
  readonly id: string;
  /** What was spent before it had that id, which is not its to tell. */
  readonly before: SavedSpending;
}

/** What others had spent. */
export interface SavedHeard extends SavedSpending {
  /** The store that said so (`place`); a version that knew of none wrote nothing. */
  readonly from?: string;
}

/** The store, and who hears of it. */
export interface SharedBudgets {
  readonly store: BudgetStore;
  /** It answers, or does not any more. */
  onState(isUp: boolean, error: unknown): void;
  onCall(isAnswered: boolean): void;
  /** Of the keys of that tenant alone. Told once in a row. */
  onRefused(tenant: string, error: unknown): void;
}

export interface SharingParts extends SharedBudgets {
  readonly gateway: SavedGateway;
  /** As it was last kept (`heard`), by whichever store; absent: nothing is known of others. */
  readonly heard: SavedHeard | undefined;
  /** What this gateway has spent in the day and the month of that time. */
  spentAt(ms: number): (tenant: string) => Spent;
  /** More is known than before, or less. */
  onNews(): void;
}

type Kind = keyof Spent;
type SpentBy = (tenant: string) => Spent;
const kinds = ['day', 'month'] as const satisfies readonly Kind[];

/** Of one tenant and kind, as the store said last. */
interface Heard {
  readonly period: string;
  readonly others: number;
  readonly own: number;
}
const nothing: Heard = { period: '', others: 0, own: 0 };

interface Known {
  readonly day: Heard;
  readonly month: Heard;
  readonly askedMs: number;
  /** The store refuses what is asked about it. */
  readonly isRefused: boolean;
}
const unheard: Known = { day: nothing, month: nothing, askedMs: 0, isRefused: false };

const roundMs = 1000;
/** Of a budget: from there on its tenant is asked about at every tick. */
const nearShare = 0.9;
/** In one round; where there are more tenants, those that spend come first and the others in turn. */
const callsMax = 1000;
const startMsMax = 500;
/** A key outlives its period by so long: clocks differ. */
const keepMs = 3_600_000;

export class BudgetSharing {
  readonly #parts: SharingParts;
  readonly #before: Spending;
  readonly #known = new Map<string, Known>();
  #isUp: boolean | undefined;
  #roundMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;

  constructor(parts: SharingParts) {
    this.#parts = parts;
    this.#before = new Spending(parts.gateway.before);
    const { heard, store } = parts;
    // Of another store it is of other gateways, and would never fall.
    if (heard?.from !== store.place) return;
    this.#recall('day', heard.days);
    this.#recall('month', heard.months);
  }

  /** What others have spent, as the store said last. */
  get heard(): SavedHeard {
    const from = this.#parts.store.place;
    return { from, days: this.#heardOf('day'), months: this.#heardOf('month') };
  }

  /** A first round; whether or not the store answers, it is over soon. */
  async start(budgets: readonly BudgetRow[]): Promise<void> {
    await Promise.race([this.poll(budgets), sleep(startMsMax, undefined, { ref: false })]);
    if (this.#isUp === undefined) this.#setUp(false, new Error(`no answer in ${startMsMax} ms`));
  }

  /** Asks about those whose turn it is; resolves once it has. Never rejects. */
  poll(budgets: readonly BudgetRow[]): Promise<void> {
    if (this.#asking !== undefined) return this.#asking;
    const due = this.#due(budgets, Date.now());
    if (due.length === 0) return Promise.resolve();
    this.#asking = this.#ask(due).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  /** Tells what was spent last, for at most `limitMs`. */
  async close(budgets: readonly BudgetRow[], limitMs: number): Promise<void> {
    const last = async (): Promise<void> => {
      await this.#asking;
      if (this.#isUp === true) await this.#ask(budgets);
    };
    await Promise.race([last(), sleep(limitMs, undefined, { ref: false })]);
    this.#parts.store.close();
  }

  /** What all gateways have spent in the day and the month of that time, as far as it is known. */
  totalAt(ms: number): SpentBy {
    const allBy = this.#parts.spentAt(ms);
    const toldBy = this.#toTellAt(ms);
    const periods = periodsOf(ms);
    return (tenant) => {
      const [all, told, known] = [allBy(tenant), toldBy(tenant), this.#known.get(tenant)];
      const of = (kind: Kind): number => {
        const { period, others, own } = known?.[kind] ?? nothing;
        if (period !== periods[kind]) return all[kind];
        return Math.max(all[kind], others + Math.max(own, told[kind]));
      };
      return { day: of('day'), month: of('month') };
    };
  }

  /** What others spend is not heard of. */
  isUnknown(tenant: string): boolean {
    return this.#isUp !== true || this.#known.get(tenant)?.isRefused === true;
  }

  /** What is its own is in its files, whatever the store has said of that. */
  #recall(kind: Kind, saved: SavedPeriods): void {
    for (const [period, sums] of Object.entries(saved)) {
      for (const [tenant, others] of Object.entries(sums)) {
        const known = this.#known.get(tenant) ?? unheard;
        this.#known.set(tenant, { ...known, [kind]: { period, others, own: 0 } });
      }
    }
  }

  #heardOf(kind: Kind): SavedPeriods {
    const heard = [...this.#known].filter(([, known]) => known[kind].others > 0);
    const byPeriod = Object.groupBy(heard, ([, known]) => known[kind].period);
    return Object.fromEntries(
      Object.entries(byPeriod).map(([period, all = []]) => {
        return [period, Object.fromEntries(all.map(([name, known]) => [name, known[kind].others]))];
      }),
    );
  }

  #toTellAt(ms: number): SpentBy {
    const allBy = this.#parts.spentAt(ms);
    const beforeBy = this.#before.at(ms);
    return (tenant) => {
      const [all, before] = [allBy(tenant), beforeBy(tenant)];
      const of = (kind: Kind): number => Math.max(0, all[kind] - before[kind]);
      return { day: of('day'), month: of('month') };
    };
  }

  #due(budgets: readonly BudgetRow[], ms: number): readonly BudgetRow[] {
    const steadyMs = performance.now();
    if (steadyMs - this.#roundMs < roundMs) {
      return this.#isUp === true ? nearlySpent(budgets, this.totalAt(ms)) : [];
    }
    this.#roundMs = steadyMs;
    this.#forget(budgets);
    if (budgets.length <= callsMax) return budgets;
    const toldBy = this.#toTellAt(ms);
    const rank = ({ tenant }: BudgetRow) => {
      const { month, askedMs } = this.#known.get(tenant) ?? unheard;
      return { isNews: toldBy(tenant).month > month.own, askedMs };
    };
    const ranked = budgets.map((row) => ({ row, ...rank(row) }));
    ranked.sort((a, b) => Number(b.isNews) - Number(a.isNews) || a.askedMs - b.askedMs);
    return ranked.slice(0, callsMax).map(({ row }) => row);
  }

  /** Tenants that have no budget any more. */
  #forget(budgets: readonly BudgetRow[]): void {
    if (this.#known.size <= budgets.length) return;
    const names = new Set(budgets.map(({ tenant }) => tenant));
    for (const name of this.#known.keys()) if (!names.has(name)) this.#known.delete(name);
  }

  async #ask(due: readonly BudgetRow[]): Promise<void> {
    const { store, onNews } = this.#parts;
    try {
      await store.connect();
      const ms = Date.now();
      const toldBy = this.#toTellAt(ms);
      const asked = due.map(({ tenant }) => this.#askOf(tenant, toldBy(tenant), ms));
      const failure = (await Promise.allSettled(asked)).find(({ status }) => status === 'rejected');
      if (failure !== undefined) throw (failure as PromiseRejectedResult).reason;
      this.#setUp(true, undefined);
    } catch (error) {
      store.close();
      this.#setUp(false, error);
    }
    onNews();
  }

  /** Rejects unless it is refused for this tenant alone. */
  async #askOf(tenant: string, told: Spent, ms: number): Promise<void> {
    const { store, gateway, onCall, onRefused } = this.#parts;
    const periods = periodsOf(ms);
    const ends = { day: endOfDay(ms), month: endOfMonth(ms) };
    const calls = kinds.map((kind) => {
      return { period: periods[kind], spent: told[kind], expiresInMs: ends[kind] - ms + keepMs };
    });
    const askedMs = performance.now();
    const before = this.#known.get(tenant) ?? unheard;
    try {
      const [day, month] = await store.exchange(gateway.id, tenant, calls);
      this.#known.set(tenant, {
        ...{ askedMs, isRefused: false },
        day: heardOf(periods.day, day as PeriodAnswer, before.day),
        month: heardOf(periods.month, month as PeriodAnswer, before.month),
      });
      onCall(true);
    } catch (error) {
      onCall(false);
      if (!(error instanceof RefusedError)) throw error;
      this.#known.set(tenant, { ...before, askedMs, isRefused: true });
      if (!before.isRefused) onRefused(tenant, error);
    }
  }

  #setUp(isUp: boolean, error: unknown): void {
    if (this.#isUp === isUp) return;
    this.#isUp = isUp;
    // Who hears of the state finds tenants treated by it.
    this.#parts.onNews();
    this.#parts.onState(isUp, error);
  }
}

function nearlySpent(budgets: readonly BudgetRow[], totalBy: SpentBy): readonly BudgetRow[] {
  return budgets.filter((row) => {
    const total = totalBy(row.tenant);
    const limited = kinds.filter((kind) => row[kind] > 0);
    const shares = limited.map((kind) => total[kind] / inBillionths(row[kind]));
    return shares.every((share) => share < 1) && shares.some((share) => share >= nearShare);
  });
}

/** Sums only grow: a store that has less than it said has lost its memory, and hears of it again. */
function heardOf(period: string, { total, own }: PeriodAnswer, before: Heard): Heard {
  const others = total - own;
  if (before.period !== period) return { period, others, own };
  return { period, others: Math.max(others, before.others), own: Math.max(own, before.own) };
}
