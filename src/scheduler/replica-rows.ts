/**
 * The replica table as the scheduler sees it: reads what the main thread says, writes what it gave.
 *
 * Scheduler thread; never blocks. A change that the main thread is still writing is read again: the
 * version is taken before the rows and grows after them.
 */

import { adaptersMax } from '../config/capacities.ts';
import { BreakerState } from '../dispatch/breaker.ts';
import type { EngineReport } from '../dispatch/foreign-load.ts';
import type { RateTerms } from '../dispatch/rate-limit.ts';
import type { ReplicaFacts } from '../dispatch/replica-state.ts';
import { replicaCounts } from '../shm/memory.ts';
import { ReplicaAdmin, ReplicaTableLayout } from '../shm/replica-table.layout.ts';

const { at } = ReplicaTableLayout.place(replicaCounts);
const field = at.replica.at;
const adapterWords = adaptersMax / 32;
const wordOf = (row: number, offset: number): number =>
  at.replica.base + row * at.replica.stride + offset;

export class ReplicaRows {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #report: EngineReport = {
    ...{ scrapedUs: 0, intervalUs: 0, running: 0, waiting: 0, kvTokens: 0, kvCapacity: 0 },
    ...{ ownRequests: 0, ownTokens: 0 },
  };
  #version = 0;

  constructor(region: SharedArrayBuffer) {
    ReplicaTableLayout.attach(region, replicaCounts);
    this.#words = new Int32Array(region);
    this.#floats = new Float64Array(region);
  }

  /** Rows in use lie below this. */
  get count(): number {
    return Atomics.load(this.#words, at.count);
  }

  /** Of the table as it was read last. */
  get version(): number {
    return this.#version;
  }

  get changed(): boolean {
    return Atomics.load(this.#words, at.version) !== this.#version;
  }

  /** Hands every row to `apply`. */
  read(apply: (row: number, facts: ReplicaFacts) => void): void {
    this.#version = Atomics.load(this.#words, at.version);
    const count = this.count;
    for (let row = 0; row < count; row++) {
      const read = (offset: number): number => Atomics.load(this.#words, wordOf(row, offset));
      const readFloat = (offset: number): number => this.#floats[wordOf(row, offset) / 2] as number;
      const admin = read(field.admin);
      apply(row, {
        epoch: read(field.epoch),
        // A row that nobody uses is a member of no model.
        model: admin === ReplicaAdmin.absent ? -1 : read(field.model),
        active: admin === ReplicaAdmin.active,
        draining: admin === ReplicaAdmin.draining,
        healthy: read(field.healthy) === 1,
        maxInFlight: read(field.maxInFlight),
        identity: read(field.identity),
        kvTokens: read(field.kvTokens),
        adapters: this.#adapters(row, field.adapters),
        loadable: this.#adapters(row, field.loadable),
        batching:
          read(field.batchItems) === 0
            ? undefined
            : {
                windowUs: readFloat(field.batchWindowUs),
                itemsMax: read(field.batchItems),
                bytesMax: read(field.batchBytes),
              },
        rate: this.#rateOf(row),
        weight: readFloat(field.weight),
        prefillUs: readFloat(field.prefillUs),
        residentUs: readFloat(field.residentUs),
      });
    }
  }

  #adapters(row: number, offset: number): Int32Array {
    const word = wordOf(row, offset);
    return this.#words.slice(word, word + adapterWords);
  }

  #rateOf(row: number): RateTerms | undefined {
    const read = (offset: number): number => this.#floats[wordOf(row, offset) / 2] as number;
    const requestsPerUs = read(field.rateRequests);
    const tokensPerUs = read(field.rateTokens);
    if (requestsPerUs === 0 && tokensPerUs === 0) return undefined;
    return { requestsPerUs, tokensPerUs, burstUs: read(field.rateBurstUs) };
  }

  /** Hands the last report of every engine that has made one to `apply`, in a record it reuses. */
  readReports(apply: (row: number, report: EngineReport) => void): void {
    const report = this.#report;
    const count = this.count;
    for (let row = 0; row < count; row++) {
      // Acquires the half that the store in Membership.report() published.
      const reports = Atomics.load(this.#words, wordOf(row, field.reports));
      if (reports === 0) continue;
      const half = reports & 1;
      const read = (offset: number): number => this.#words[wordOf(row, offset) + half] as number;
      const readFloat = (offset: number): number =>
        this.#floats[wordOf(row, offset) / 2 + half] as number;
      report.scrapedUs = readFloat(field.scrapedUs);
      report.intervalUs = readFloat(field.scrapeIntervalUs);
      report.running = read(field.engineRunning);
      report.waiting = read(field.engineWaiting);
      report.kvTokens = read(field.engineKvTokens);
      report.kvCapacity = read(field.engineKvCapacity);
      report.ownRequests = read(field.engineOwnRequests);
      report.ownTokens = readFloat(field.engineOwnTokens);
      apply(row, report);
    }
  }

  setLoad(row: number, inFlight: number, contextTokens: number): void {
    const word = wordOf(row, field.inFlight);
    if (this.#words[word] !== inFlight) Atomics.store(this.#words, word, inFlight);
    this.#floats[wordOf(row, field.contextTokens) / 2] = contextTokens;
  }

  /** True when the breaker of the row has opened since it was told last. */
  setBreaker(row: number, state: BreakerState): boolean {
    const word = wordOf(row, field.breaker);
    if (this.#words[word] === state) return false;
    Atomics.store(this.#words, word, state);
    if (state !== BreakerState.open) return false;
    const ejections = wordOf(row, field.ejections);
    Atomics.store(this.#words, ejections, ((this.#words[ejections] as number) + 1) | 0);
    return true;
  }

  /** `adapter` is that of the attempt, counted from 1; 0 for none. */
  countDispatched(row: number, adapter: number, nowUs: number): void {
    const word = wordOf(row, field.dispatched);
    this.#words[word] = (this.#words[word] as number) + 1;
    if (adapter !== 0) this.#floats[wordOf(row, field.adapterUsedUs) / 2 + adapter - 1] = nowUs;
  }

  countFailed(row: number): void {
    const word = wordOf(row, field.failed);
    this.#words[word] = (this.#words[word] as number) + 1;
  }
}
