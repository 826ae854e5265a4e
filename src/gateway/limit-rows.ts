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
import { remaining } from '../lib/gcra.ts';
import { LimitTable } from '../shm/limits.ts';

type LimitsConfig = Config['tenants'][number]['limits'];

const minuteS = 60;
const usPerSecond = 1e6;

export class LimitRows {
  readonly #table: LimitTable;
  /** By `tenant` and `tenant/model`; names have no slash, models come last. */
  readonly #rows = new Map<string, number>();
  readonly #free: number[] = [];
  #next = 0;

  constructor(region: SharedArrayBuffer) {
    this.#table = new LimitTable(region);
  }

  /** Row of the tenant, or of the model for it; -1: it has no limits. */
  readonly rowOf = (tenant: string, model?: string): number =>
    this.#rows.get(nameOf(tenant, model)) ?? -1;

  /** What a row has left, for people; null: it has no limits. */
  view(row: number): unknown {
    if (row < 0) return null;
    const { words, doubles, at } = this.#table;
    const word = this.#table.word(row);
    const us = nowUs();
    const left = (rate: number, burst: number, tat: number): unknown => {
      const perSecond = doubles[(word + rate) >> 1] as number;
      if (perSecond === 0) return null;
      const full = doubles[(word + burst) >> 1] as number;
      const units = remaining(
        doubles[(word + tat) >> 1] as number,
        us,
        perSecond / usPerSecond,
        full,
      );
      return { per_minute: perSecond * minuteS, burst: full, remaining: Math.floor(units) };
    };
    const most = words[word + at.concurrency] as number;
    return {
      requests: left(at.requestRate, at.requestBurst, at.requestTat),
      input_tokens: left(at.inputRate, at.inputBurst, at.inputTat),
      output_tokens: left(at.outputRate, at.outputBurst, at.outputTat),
      concurrency: most === 0 ? null : { most, running: words[word + at.running] },
    };
  }

  apply(tenants: Config['tenants']): void {
    const wanted = new Map<string, LimitsConfig>();
    for (const { name, limits, model_limits } of tenants) {
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
    }
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
