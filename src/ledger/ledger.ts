/**
 * Follows the usage files of all acceptors: sums up what tenants spend, and has each sink get every event.
 * Ledger thread; never blocks. Acceptors and their files know nothing of it.
 *
 * Its death loses nothing: the files are written on, the words of tenants stay as they are, and a successor
 * goes on where the state file says, with events of the last second delivered twice.
 */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type SinkName, sinkNames } from '../config/sinks.ts';
import type { BudgetRow } from '../config/tenants.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { inBillionths } from '../lib/price.ts';
import type { LedgerTable } from '../shm/ledger.ts';
import type { Logger } from '../telemetry/log.ts';
import { RecentIds } from '../telemetry/recent-ids.ts';
import { parseUsageEvent } from '../telemetry/usage-event.ts';
import { usageFilesAmong, usagePathOf } from '../telemetry/usage-path.ts';
import { Courier } from './courier.ts';
import { Journal, tally } from './journal.ts';
import type { UsageSink } from './sinks/sink.ts';
import { endOfDay, endOfMonth, Spending } from './spending.ts';
import { type LedgerState, readState, stateFileOf, writeState } from './state-file.ts';

export interface LedgerParts {
  /** `usage.file`, and how many acceptors write one of its kind. */
  readonly path: string;
  readonly acceptors: number;
  readonly table: LedgerTable;
  readonly log: Pick<Logger, 'warn' | 'error'>;
  readonly sinks: readonly SinkName[];
  open(sink: SinkName): Promise<UsageSink>;
  onStored(sink: SinkName, events: number): void;
  onFailed(sink: SinkName, events: number): void;
  /** Told once of each row of failures, and once when it is over (undefined). */
  onTrouble(sink: SinkName, error: unknown): void;
  /** Their file was deleted before the sink had them. */
  onLost(sink: SinkName, events: number): void;
}

const tickMs = 200;
const saveMs = 1000;
/** A chunk that could not be written whole is there twice, soon after. */
const recentMax = 4096;

export class Ledger {
  readonly #parts: LedgerParts;
  readonly #state: string;
  readonly #journals: Journal[] = [];
  readonly #couriers = new Map<SinkName, Courier>();
  readonly #seen = new RecentIds(recentMax);
  #spending = new Spending(undefined, Date.now());
  #budgets: readonly BudgetRow[] = [];
  #timer: NodeJS.Timeout | undefined;
  #ticking: Promise<void> | undefined;
  #savedMs = 0;
  #saved = '';
  readonly #reading: Attempts;
  readonly #writing: Attempts;
  #isClosing = false;

  constructor(parts: LedgerParts) {
    this.#parts = parts;
    this.#reading = new Attempts(parts.log, 'usage files cannot be read');
    this.#writing = new Attempts(parts.log, 'the state of the ledger cannot be written');
    this.#state = stateFileOf(parts.path);
  }

  /** Resolves when all that is in the files is summed up; sinks get what they lack from here on. */
  async start(budgets: readonly BudgetRow[]): Promise<void> {
    const state = await this.#readState();
    this.#spending = new Spending(state?.spending, Date.now());
    const readers = this.#parts.sinks;
    for (const path of await this.#paths(state)) {
      const saved = state?.journals[basename(path)];
      const onLost = (reader: string, lines: number): void => this.#lost(reader, lines);
      this.#journals.push(new Journal(path, saved, readers, onLost));
    }
    this.setBudgets(budgets);
    await this.#tick();
    for (const name of this.#parts.sinks) this.#couriers.set(name, this.#courier(name));
    this.#plan();
  }

  setBudgets(budgets: readonly BudgetRow[]): void {
    this.#budgets = budgets;
    this.#publish();
  }

  /** A last look at the files, a last try of each sink for at most `limitMs`, and the state. */
  async close(limitMs: number): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#timer);
    await this.#ticking;
    await this.#tick();
    await Promise.all([...this.#couriers.values()].map((courier) => courier.close(limitMs)));
    this.#publish();
    await this.#save();
  }

  #courier(name: SinkName): Courier {
    const { open, onStored, onFailed, onTrouble } = this.#parts;
    return new Courier({
      name,
      journals: this.#journals,
      open: () => open(name),
      onStored: (events) => onStored(name, events),
      onFailed: (events) => onFailed(name, events),
      onTrouble: (error) => onTrouble(name, error),
    });
  }

  #plan(): void {
    if (this.#isClosing) return;
    this.#timer = setTimeout(() => {
      faultPoint('timer');
      this.#ticking = this.#tick().finally(() => this.#plan());
    }, tickMs);
  }

  /** Never rejects: what cannot be read or written now is so later. */
  async #tick(): Promise<void> {
    await this.#reading.run(async () => {
      for (const journal of this.#journals) await this.#sumUp(journal);
    });
    this.#publish();
    for (const courier of this.#couriers.values()) courier.wake();
    if (performance.now() - this.#savedMs >= saveMs) await this.#save();
  }

  async #sumUp(journal: Journal): Promise<void> {
    for (;;) {
      const chunk = await journal.read(tally);
      if (chunk === undefined) return;
      for (const line of chunk.lines) {
        const event = parseUsageEvent(line);
        if (event === undefined || !this.#seen.add(event.id)) continue;
        const { tenant, time, cost } = event;
        if (tenant !== null && cost) this.#spending.add(tenant, time, inBillionths(cost));
      }
      journal.commit(tally, chunk);
    }
  }

  #publish(): void {
    const { table } = this.#parts;
    const nowMs = Date.now();
    this.#spending.advance(nowMs);
    for (const { tenant, row, day, month } of this.#budgets) {
      const spent = this.#spending.of(tenant);
      const isOver = (budget: number, sum: number): boolean =>
        budget > 0 && sum >= inBillionths(budget);
      const ofDay = isOver(day, spent.day) ? endOfDay(nowMs) : 0;
      const ofMonth = isOver(month, spent.month) ? endOfMonth(nowMs) : 0;
      table.writeTenant(row, 'daySpent', spent.day);
      table.writeTenant(row, 'monthSpent', spent.month);
      table.writeTenant(row, 'refusedUntilMs', Math.max(ofDay, ofMonth));
    }
    for (const [name, courier] of this.#couriers) {
      const row = sinkNames.indexOf(name);
      table.writeSink(row, 'waiting', courier.waiting);
      table.writeSink(row, 'oldestMs', courier.oldestMs);
    }
  }

  #lost(reader: string, lines: number): void {
    const name = this.#parts.sinks.find((sink) => sink === reader);
    if (name !== undefined && lines > 0) this.#parts.onLost(name, lines);
  }

  async #readState(): Promise<LedgerState | undefined> {
    try {
      return await readState(this.#state);
    } catch (error) {
      const text = 'the state of the ledger cannot be read: it begins with the oldest usage files';
      this.#parts.log.error(text, { err: error });
      return undefined;
    }
  }

  async #save(): Promise<void> {
    this.#savedMs = performance.now();
    const journals = this.#journals.map(({ path, saved }) => [basename(path), saved]);
    const state: LedgerState = {
      version: 1,
      journals: Object.fromEntries(journals),
      spending: this.#spending.saved,
    };
    const text = JSON.stringify(state);
    if (text === this.#saved) return;
    await this.#writing.run(async () => {
      await writeState(this.#state, text);
      this.#saved = text;
    });
  }

  /** Of the acceptors there are, and of those there were when there was another number of them. */
  async #paths(state: LedgerState | undefined): Promise<string[]> {
    const { path, acceptors } = this.#parts;
    const folder = dirname(path);
    const own = Array.from({ length: acceptors }, (_, i) => usagePathOf(path, i, acceptors));
    const there = await readdir(folder).catch(() => []);
    const names = [...there, ...Object.keys(state?.journals ?? {})];
    const former = usageFilesAmong(names, path).map((name) => join(folder, name));
    return [...new Set([...own, ...former])];
  }
}

/** Something that may fail for a while, which is said once, and once that it is over. */
class Attempts {
  readonly #log: LedgerParts['log'];
  readonly #text: string;
  #isFailing = false;

  constructor(log: LedgerParts['log'], text: string) {
    this.#log = log;
    this.#text = text;
  }

  async run(attempt: () => Promise<void>): Promise<void> {
    try {
      await attempt();
      if (this.#isFailing) this.#log.warn(`over: ${this.#text}`);
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing) this.#log.error(this.#text, { err: error });
      this.#isFailing = true;
    }
  }
}
