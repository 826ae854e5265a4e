/**
 * Which rows of the limit table are whose. Main thread, which alone writes what is allowed.
 *
 * A tenant keeps its row, and what is in its buckets, as long as it has limits under its name.
 */
import { limitRowsMax } from '../config/capacities.ts';
import { isCounted } from '../config/rule.ts';
import type { Config } from '../config/schema.ts';
import { nowUs } from '../lib/clock.ts';
import { LeaseTable } from '../shm/leases.ts';
import { type BucketKind, LimitLevels } from '../shm/limit-levels.ts';
import type { LimitTable } from '../shm/limits.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { LimitNames } from '../shm/threads.ts';
import { NamedRows } from './named-rows.ts';

type LimitsConfig = Config['tenants'][number]['model_limits'][string];
type FailureMode = Config['limits']['failure_mode'];

const minuteS = 60;
/** By BucketKind. */
const bucketNames = ['requests', 'input_tokens', 'output_tokens'];

export class LimitRows {
  readonly #levels: LimitLevels;
  readonly #table: LimitTable;
  readonly #leases: LeaseTable | undefined;
  /** Of tenants that have none of their own. */
  readonly #failureMode: FailureMode;
  /** By `tenant` and `tenant/model`; names have no slash, models come last. */
  readonly #rows = new NamedRows(limitRowsMax);

  constructor(memory: Pick<SharedMemory, 'limits' | 'sharedLimits'>, failureMode: FailureMode) {
    this.#levels = new LimitLevels(memory);
    this.#table = this.#levels.table;
    const { sharedLimits } = memory;
    this.#leases = sharedLimits === null ? undefined : new LeaseTable(sharedLimits.leases);
    this.#failureMode = failureMode;
  }

  /** Row of the tenant, or of the model for it; -1: it has no limits. */
  readonly rowOf = (tenant: string, model?: string): number =>
    this.#rows.rowOf(nameOf(tenant, model));

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

  /** What a row has left now, by what is limited. */
  *left(row: number): Iterable<readonly [dimension: string, left: number]> {
    if (row < 0) return;
    const us = nowUs();
    for (const [kind, name] of bucketNames.entries()) {
      const level = this.#levels.read(row, kind as BucketKind, us);
      if (level !== undefined) yield [name, Math.floor(level.units)];
    }
    const { words, at } = this.#table;
    const word = this.#table.word(row);
    const most = words[word + at.concurrency] as number;
    const running = words[word + at.running] as number;
    if (most > 0) yield ['concurrency', Math.max(0, most - running)];
  }

  apply(tenants: Config['tenants']): void {
    const wanted = new Map<string, LimitsConfig>();
    const closed = new Set<string>();
    for (const { name, limits, model_limits, failure_mode } of tenants) {
      if ((failure_mode ?? this.#failureMode) === 'closed') closed.add(name);
      if (isCounted(limits)) wanted.set(nameOf(name), limits);
      for (const [model, ofModel] of Object.entries(model_limits)) {
        if (isCounted(ofModel)) wanted.set(nameOf(name, model), ofModel);
      }
    }
    this.#rows.assign(new Set(wanted.keys()), (row) => this.#changeOwner(row));
    for (const [name, limits] of wanted) {
      const row = this.#rows.rowOf(name);
      this.#write(row, limits);
      this.#setClosed(row, closed.has(name.split('/', 1)[0] as string));
    }
  }

  #setClosed(row: number, isClosed: boolean): void {
    if (this.#leases === undefined) return;
    const { words, at } = this.#leases;
    words[this.#leases.word(row) + at.isClosed] = isClosed ? 1 : 0;
  }

  #changeOwner(row: number): void {
    const { words, at } = this.#table;
    const owner = this.#table.word(row) + at.owner;
    words[owner] = ((words[owner] as number) + 1) | 0;
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
