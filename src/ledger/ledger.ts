/**
 * Follows the usage files of all acceptors: sums up what tenants spend, shares that with other gateways where
 * budgets are shared (sharing.ts), and has each sink get every event.
 * Ledger thread; never blocks. Acceptors and their files know nothing of it.
 *
 * Its death loses nothing: the files are written on, the words of tenants stay as they are, and a successor
 * goes on where the state file says, with events of the last second delivered twice. What others have spent
 * in that second it hears from the store, or where that is away not before it is back.
 */
import { randomUUID } from 'node:crypto';
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
import type { Chunk } from './segment.ts';
import {
  BudgetSharing,
  type SavedGateway,
  type SavedHeard,
  type SharedBudgets,
} from './sharing.ts';
import type { UsageSink } from './sinks/sink.ts';
import { endOfDay, endOfMonth, Spending } from './spending.ts';
import {
  type LedgerState,
  readState,
  removeUnfinished,
  stateFileOf,
  writeState,
} from './state-file.ts';

export interface LedgerParts {
  /** `usage.file`, and how many acceptors write one of its kind. */
  readonly path: string;
  readonly acceptors: number;
  readonly table: LedgerTable;
  readonly log: Pick<Logger, 'warn' | 'error'>;
  readonly sinks: readonly SinkName[];
  /** Until `setBudgets` says something else. */
  readonly budgets: readonly BudgetRow[];
  /** With other gateways; absent: they are not. */
  readonly shared?: SharedBudgets | undefined;
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
  #spending = new Spending(undefined);
  #gateway: SavedGateway | undefined;
  #sharing: BudgetSharing | undefined;
  #budgets: readonly BudgetRow[];
  /** Words of tenants stay as they are until all that is in the files is summed up. */
  #isSummedUp = false;
  #starting: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ticking: Promise<void> | undefined;
  #savedMs = 0;
  #saved = '';
  /** By what is said when they fail. */
  readonly #attempts = new Map<string, Attempts>();
  #isClosing = false;

  constructor(parts: LedgerParts) {
    this.#parts = parts;
    this.#budgets = parts.budgets;
    this.#state = stateFileOf(parts.path);
  }

  /** Resolves when all that is in the files is summed up; sinks get what they lack from here on. */
  start(): Promise<void> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  setBudgets(budgets: readonly BudgetRow[]): void {
    this.#budgets = budgets;
    if (this.#isSummedUp) this.#publish();
  }

  /** A last look at the files, a last try of each sink for at most `limitMs`, and the state. */
  async close(limitMs: number): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#timer);
    await this.#starting;
    await this.#ticking;
    await this.#tick();
    await Promise.all([
      ...[...this.#couriers.values()].map((courier) => courier.close(limitMs)),
      this.#sharing?.close(this.#budgets, limitMs),
    ]);
    this.#publish();
    await this.#save();
  }

  async #start(): Promise<void> {
    await removeUnfinished(this.#state).catch(() => {}); // they are in nobody's way
    const state = await this.#readState();
    this.#spending = new Spending(state?.spending);
    const { sinks: names, log } = this.#parts;
    for (const path of await this.#paths(state)) {
      const journal = new Journal({
        ...{ path, names, saved: state?.journals[basename(path)] },
        onLost: (reader, lines) => this.#lost(reader, lines),
        onPassedOver(name, error) {
          const text = `the usage file ${name} is passed over: it cannot be opened`;
          log.error(text, { err: error });
        },
      });
      this.#journals.push(journal);
    }
    for (const journal of this.#journals) await this.#sumUp(journal);
    this.#gateway = state?.gateway ?? this.#newGateway(state === undefined);
    this.#sharing = this.#createSharing(this.#gateway, state?.heard);
    await this.#save(); // nobody is to hear of an id before it is kept
    await this.#sharing?.start(this.#budgets);
    await this.#tick();
    for (const name of this.#parts.sinks) this.#couriers.set(name, this.#courier(name));
    this.#plan();
  }

  /** Without a state, what is in the files was told under an id that is lost, if budgets were shared. */
  #newGateway(hasLostState: boolean): SavedGateway {
    const isTold = hasLostState && this.#parts.shared !== undefined;
    return { id: randomUUID(), before: isTold ? this.#spending.saved : { days: {}, months: {} } };
  }

  #createSharing(gateway: SavedGateway, heard: SavedHeard | undefined): BudgetSharing | undefined {
    const { shared } = this.#parts;
    if (shared === undefined) return undefined;
    return new BudgetSharing({
      ...{ ...shared, gateway, heard },
      spentAt: (ms) => this.#spending.at(ms),
      onNews: () => {
        if (this.#isSummedUp) this.#publish();
      },
    });
  }

  #courier(name: SinkName): Courier {
    const { open, onStored, onFailed, onTrouble } = this.#parts;
    return new Courier({
      name,
      journals: this.#journals,
      read: (journal) => this.#read(journal, name),
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
    for (const journal of this.#journals) await this.#sumUp(journal);
    this.#isSummedUp = true;
    this.#publish();
    if (!this.#isClosing) void this.#sharing?.poll(this.#budgets);
    for (const courier of this.#couriers.values()) courier.wake();
    if (performance.now() - this.#savedMs >= saveMs) await this.#save();
  }

  async #sumUp(journal: Journal): Promise<void> {
    for (;;) {
      const chunk = await this.#read(journal, tally);
      if (chunk === undefined) return;
      for (const line of chunk.lines) {
        const event = parseUsageEvent(line);
        if (event === undefined || !this.#seen.add(event.id)) continue;
        const { tenant, time, cost } = event;
        if (tenant !== null && cost)
          this.#spending.add(tenant, time, inBillionths(cost), Date.now());
      }
      journal.commit(tally, chunk);
    }
  }

  /** Undefined: nothing comes next, or nothing can be read, which is said and holds up no other file. */
  async #read(journal: Journal, reader: string): Promise<Chunk | undefined> {
    const text = `the usage file ${journal.path} cannot be read`;
    let chunk: Chunk | undefined;
    await this.#try(reader === tally ? text : `${text} for ${reader}`, async () => {
      chunk = await journal.read(reader);
    });
    return chunk;
  }

  #publish(): void {
    const { table } = this.#parts;
    const nowMs = Date.now();
    const spentBy = this.#sharing?.totalAt(nowMs) ?? this.#spending.at(nowMs);
    for (const { tenant, row, day, month, isClosed } of this.#budgets) {
      const spent = spentBy(tenant);
      const isOver = (budget: number, sum: number): boolean =>
        budget > 0 && sum >= inBillionths(budget);
      const ofDay = isOver(day, spent.day) ? endOfDay(nowMs) : 0;
      const ofMonth = isOver(month, spent.month) ? endOfMonth(nowMs) : 0;
      table.writeTenant(row, 'daySpent', spent.day);
      table.writeTenant(row, 'monthSpent', spent.month);
      table.writeTenant(row, 'refusedUntilMs', Math.max(ofDay, ofMonth));
      const isUnknown = isClosed && this.#sharing?.isUnknown(tenant) === true;
      table.writeTenant(row, 'isUnknown', isUnknown ? 1 : 0);
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
    // First: a state that outlives a power failure must not be ahead of the files.
    for (const journal of this.#journals) {
      const text = `the usage file ${journal.path} cannot be synced to the disk`;
      await this.#try(text, () => journal.sync());
    }
    const journals = this.#journals.map(({ path, saved }) => [basename(path), saved]);
    const state: LedgerState = {
      version: 2,
      journals: Object.fromEntries(journals),
      spending: this.#spending.saved,
      gateway: this.#gateway,
      heard: this.#sharing?.heard,
    };
    const text = JSON.stringify(state);
    if (text === this.#saved) return;
    await this.#try('the state of the ledger cannot be written', async () => {
      await writeState(this.#state, text);
      this.#saved = text;
    });
  }

  /** That it fails is said once, and once that it is over. */
  async #try(text: string, attempt: () => Promise<void>): Promise<void> {
    const attempts = this.#attempts.get(text) ?? new Attempts(this.#parts.log, text);
    this.#attempts.set(text, attempts);
    await attempts.run(attempt);
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
