/**
 * What each tenant has spent in this day and this month of UTC, in billionths of the currency. Pure; the
 * time is told, and never goes back. An event counts for the day and the month of its own time, so one that
 * is told late is left out once they are over. Memory: one entry per tenant that has spent in this month.
 */

export interface Spent {
  readonly day: number;
  readonly month: number;
}
export interface SavedSpending {
  /** `2026-12-01`. */
  readonly day: string;
  readonly tenants: Readonly<Record<string, Spent>>;
}

const nothing: Spent = { day: 0, month: 0 };
const dayChars = 10;
const monthChars = 7;

export class Spending {
  #day: string;
  readonly #tenants: Map<string, Spent>;

  constructor(saved: SavedSpending | undefined, nowMs: number) {
    this.#day = saved?.day ?? dayOf(nowMs);
    this.#tenants = new Map(Object.entries(saved?.tenants ?? {}));
    this.advance(nowMs);
  }

  get saved(): SavedSpending {
    return { day: this.#day, tenants: Object.fromEntries(this.#tenants) };
  }

  /** Days and months that are over count no more. */
  advance(nowMs: number): void {
    const day = dayOf(nowMs);
    if (day <= this.#day) return;
    const isSameMonth = day.slice(0, monthChars) === this.#day.slice(0, monthChars);
    this.#day = day;
    if (!isSameMonth) this.#tenants.clear();
    else
      for (const [tenant, { month }] of this.#tenants) this.#tenants.set(tenant, { day: 0, month });
  }

  /** `time` as events have it: `2026-12-01T00:00:00.000Z`. */
  add(tenant: string, time: string, cost: number): void {
    if (time.slice(0, monthChars) !== this.#day.slice(0, monthChars)) return;
    const { day, month } = this.of(tenant);
    const ofDay = time.slice(0, dayChars) === this.#day ? cost : 0;
    this.#tenants.set(tenant, { day: day + ofDay, month: month + cost });
  }

  of(tenant: string): Spent {
    return this.#tenants.get(tenant) ?? nothing;
  }
}

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, dayChars);

/** Wall clock at which the day, and the month, of that time is over. */
export function endOfDay(ms: number): number {
  const at = new Date(ms);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate() + 1);
}

export function endOfMonth(ms: number): number {
  const at = new Date(ms);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1, 1);
}
