/**
 * What each tenant has spent in days and months of UTC, in billionths of the currency. Pure.
 *
 * An event counts for the day and the month of its own time, whatever the clock says when it is read. So a
 * clock that is wrong for a while switches no budget off: once it is right, the sums are there. Of each kind
 * the few periods that are nearest to the clock are kept; the others go when another one comes.
 */

export interface Spent {
  readonly day: number;
  readonly month: number;
}
/** By period, `2026-12-01` or `2026-12`, and tenant. */
export type SavedPeriods = Readonly<Record<string, Readonly<Record<string, number>>>>;
export interface SavedSpending {
  readonly days: SavedPeriods;
  readonly months: SavedPeriods;
}

/** This one, those next to it, and one of a clock that was wrong. */
const periodsMax = 4;
const dayChars = 10;
const monthChars = 7;

export class Spending {
  readonly #days: Periods;
  readonly #months: Periods;

  constructor(saved: SavedSpending | undefined) {
    this.#days = new Periods(dayChars, saved?.days ?? {});
    this.#months = new Periods(monthChars, saved?.months ?? {});
  }

  get saved(): SavedSpending {
    return { days: this.#days.saved, months: this.#months.saved };
  }

  /** `time` as events have it: `2026-12-01T00:00:00.000Z`; one that is no time counts for nothing. */
  add(tenant: string, time: string, cost: number, nowMs: number): void {
    this.#days.add(tenant, time, cost, nowMs);
    this.#months.add(tenant, time, cost, nowMs);
  }

  /** What tenants have spent in the day and the month of that time. */
  at(ms: number): (tenant: string) => Spent {
    const time = new Date(ms).toISOString();
    const day = this.#days.of(time);
    const month = this.#months.of(time);
    return (tenant) => ({ day: day?.get(tenant) ?? 0, month: month?.get(tenant) ?? 0 });
  }
}

class Periods {
  readonly #chars: number;
  readonly #sums: Map<string, Map<string, number>>;

  constructor(chars: number, saved: SavedPeriods) {
    this.#chars = chars;
    this.#sums = new Map(
      Object.entries(saved).map(([period, sums]) => [period, new Map(Object.entries(sums))]),
    );
  }

  get saved(): SavedPeriods {
    const entries = [...this.#sums].map(([period, sums]) => [period, Object.fromEntries(sums)]);
    return Object.fromEntries(entries);
  }

  of(time: string): ReadonlyMap<string, number> | undefined {
    return this.#sums.get(time.slice(0, this.#chars));
  }

  add(tenant: string, time: string, cost: number, nowMs: number): void {
    const period = time.slice(0, this.#chars);
    const sums = this.#sums.get(period) ?? this.#begin(period, nowMs);
    sums?.set(tenant, (sums.get(tenant) ?? 0) + cost);
  }

  /** Undefined: it is no period, or farther from the clock than all that are kept. */
  #begin(period: string, nowMs: number): Map<string, number> | undefined {
    if (period.length !== this.#chars || Number.isNaN(Date.parse(period))) return undefined;
    this.#sums.set(period, new Map());
    const distance = (each: string): number => Math.abs(Date.parse(each) - nowMs);
    while (this.#sums.size > periodsMax) {
      const [farthest] = [...this.#sums.keys()].sort((a, b) => distance(b) - distance(a));
      this.#sums.delete(farthest as string);
    }
    return this.#sums.get(period);
  }
}

/** Names of the day and the month of that time. */
export function periodsOf(ms: number): Readonly<Record<keyof Spent, string>> {
  const time = new Date(ms).toISOString();
  return { day: time.slice(0, dayChars), month: time.slice(0, monthChars) };
}

/** Wall clock at which the day, and the month, of that time is over. */
export function endOfDay(ms: number): number {
  const at = new Date(ms);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate() + 1);
}

export function endOfMonth(ms: number): number {
  const at = new Date(ms);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1, 1);
}
