/**
 * Which rows of the limit table are whose. Main thread, which alone writes what is allowed.
 *
 * A tenant keeps its row, and what is in its buckets, as long as it has limits under its name. A row that is
 * free is given to another only when no other is: acceptors may still name its last owner for a moment.
 */
import { limitRowsMax } from '../config/capacities.ts';
import type { Config } from '../config/schema.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { LeaseTable } from '../shm/leases.ts';
import { type BucketKind, LimitLevels } from '../shm/limit-levels.ts';
import type { LimitTable } from '../shm/limits.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { LimitNames } from '../shm/threads.ts';

type LimitsConfig = Config['tenants'][number]['limits'];
type FailureMode = Config['limits']['failure_mode'];

const minuteS = 60;

export class LimitRows {
  readonly #levels: LimitLevels;
  readonly #table: LimitTable;
  readonly #leases: LeaseTable | undefined;
  /** Of tenants that have none of their own. */
  readonly #failureMode: FailureMode;
  /** By `tenant` and `tenant/model`; names have no slash, models come last. */
  readonly #rows = new Map<string, number>();
  readonly #free: number[] = [];
  #next = 0;

  constructor(memory: Pick<SharedMemory, 'limits' | 'sharedLimits'>, failureMode: FailureMode) {
    this.#levels = new LimitLevels(memory);
    this.#table = this.#levels.table;
    const { sharedLimits } = memory;
    this.#leases = sharedLimits === null ? undefined : new LeaseTable(sharedLimits.leases);
    this.#failureMode = failureMode;
  }

  /** Row of the tenant, or of the model for it; -1: it has no limits. */
  readonly rowOf = (tenant: string, model?: string): number =>
    this.#rows.get(nameOf(tenant, model)) ?? -1;

  /** In a store that is shared: the tenant in braces, so that a cluster keeps its buckets together. */
  get names(): LimitNames {
    return new Map(
      [...this.#rows].map(([name, row]) => {
        const [tenant, ...model] = name.split('/');
        const ofModel = model.length === 0 ? '' : `:${model.join('/')}`;
        const { words, at } = this.#table;
        const owner = words[this.#table.word(row) + at.owner] as number;
        return [row, { name: `{${tenant}}${ofModel}`, owner }];
      }),
    );
  }

  /** What a row has left, for people; null: it has no limits. */
  view(row: number): unknown {
    if (row < 0) return null;
    const { words, at } = this.#table;
    const word = this.#table.word(row);
    const us = nowUs();
    const left = (kind: BucketKind): unknown => {
      const level = this.#levels.read(row, kind, us);
      if (level === undefined) return null;
      const { perMinute, burst, units, resetMs } = level;
      // Tells how deep in debt an empty one is, too.
      const fullInMs = Math.round(resetMs * 1000) / 1000;
      return {
        ...{ per_minute: perMinute, burst, remaining: Math.floor(units) },
        full_in_ms: fullInMs,
      };
    };
    const most = words[word + at.concurrency] as number;
    return {
      requests: left(0),
      input_tokens: left(1),
      output_tokens: left(2),
      concurrency: most === 0 ? null : { most, running: words[word + at.running] },
    };
  }

  apply(tenants: Config['tenants']): void {
    const wanted = new Map<string, LimitsConfig>();
    const closed = new Set<string>();
    for (const { name, limits, model_limits, failure_mode } of tenants) {
      if ((failure_mode ?? this.#failureMode) === 'closed') closed.add(name);
      if (isLimit(limits)) wanted.set(nameOf(name), limits);
      for (const [model, ofModel] of Object.entries(model_limits)) {
        if (isLimit(ofModel)) wanted.set(nameOf(name, model), ofModel);
      }
    }
    for (const [name, row] of this.#rows) {
      if (wanted.has(name)) continue;
      this.#rows.delete(name);
      this.#free.push(row);
    }
    for (const [name, limits] of wanted) {
      let row = this.#rows.get(name);
      if (row === undefined) {
        row = this.#take();
        this.#rows.set(name, row);
      }
      this.#write(row, limits);
      this.#setClosed(row, closed.has(name.split('/', 1)[0] as string));
    }
  }

  #setClosed(row: number, isClosed: boolean): void {
    if (this.#leases === undefined) return;
    const { words, at } = this.#leases;
    words[this.#leases.word(row) + at.isClosed] = isClosed ? 1 : 0;
  }

  #take(): number {
    const row = this.#next < limitRowsMax ? this.#next++ : this.#free.shift();
    assert(row !== undefined, 'the config fits the table');
    const { words, at } = this.#table;
    const owner = this.#table.word(row) + at.owner;
    words[owner] = ((words[owner] as number) + 1) | 0;
    return row;
  }

  #write(row: number, limits: LimitsConfig): void {
    const { words, doubles, at } = this.#table;
    const word = this.#table.word(row);
    const seconds = limits.burst / 1000;
    const set = (rate: number, burst: number, perMinute: number): void => {
      const perSecond = perMinute / minuteS;
      doubles[(word + burst) >> 1] = Math.max(1, perSecond * seconds);
      doubles[(word + rate) >> 1] = perSecond;
    };
    set(at.requestRate, at.requestBurst, limits.requests_per_minute);
    set(at.inputRate, at.inputBurst, limits.input_tokens_per_minute);
    set(at.outputRate, at.outputBurst, limits.output_tokens_per_minute);
    words[word + at.concurrency] = limits.concurrency;
  }
}

const nameOf = (tenant: string, model?: string): string =>
  model === undefined ? tenant : `${tenant}/${model}`;

const isLimit = (limits: LimitsConfig): boolean =>
  limits.concurrency > 0 ||
  limits.requests_per_minute > 0 ||
  limits.input_tokens_per_minute > 0 ||
  limits.output_tokens_per_minute > 0;
