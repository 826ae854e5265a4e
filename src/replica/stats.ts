/**
 * What a simulated replica did: counters, a count per request id, and a ledger of attempts.
 *
 * Invariant: started = served + failed + aborted + cut + in flight, and each attempt ends once.
 * Ids and ledger are bounded; the oldest leave first, and `ids_dropped` says how many did.
 */
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';

export type AttemptEnd = 'open' | 'served' | 'failed' | 'aborted' | 'cut';

/** One request as this replica saw it. Times are of the nowMs clock. */
export interface AttemptRecord {
  readonly seq: number;
  readonly id: string;
  nonce: string;
  readonly path: string;
  readonly start: number;
  readonly bodyBytes: number;
  /** Tokens of the whole answer that came before this attempt. */
  startToken: number;
  /** Tokens written to the socket by this attempt. */
  tokens: number;
  status: number;
  end: AttemptEnd;
  endAt: number;
  /** When the client's close was seen; 0 when it was not. */
  abortAt: number;
  /** Faults asked for, in words; empty when none. */
  fault: string;
  /** Request head and checksum of the body, when the replica records them. */
  head: string;
  bodySha256: string;
}

export interface StatsSnapshot {
  started: number;
  served: number;
  failed: number;
  aborted: number;
  cut: number;
  in_flight: number;
  running: number;
  waiting: number;
  held: number;
  tokens_emitted: number;
  prompt_tokens: number;
  continuations: number;
  continuation_mismatches: number;
  faults_applied: number;
  bad_requests: number;
  connections: number;
  connections_total: number;
  last_abort_at: number;
  ids: number;
  ids_dropped: number;
  ids_repeated: number;
  /** Up to a hundred ids that came more than once. */
  repeated: Record<string, number>;
}

const LEDGER_ATTEMPTS_MAX = 16_384;
const REPEATED_SHOWN_MAX = 100;

interface Waiter {
  readonly wanted: (stats: StatsSnapshot) => boolean;
  readonly resolve: () => void;
}

export class ReplicaStats {
  running = 0;
  waiting = 0;
  held = 0;
  connections = 0;
  connectionsTotal = 0;
  badRequests = 0;
  faultsApplied = 0;
  promptTokens = 0;
  tokensEmitted = 0;
  continuations = 0;
  continuationMismatches = 0;
  readonly #idsMax: number;
  #started = 0;
  #ended = { open: 0, served: 0, failed: 0, aborted: 0, cut: 0 };
  #lastAbortAt = 0;
  #ids = new Map<string, number>();
  #idsDropped = 0;
  #idsRepeated = 0;
  #ledger: AttemptRecord[] = [];
  #waiters: Waiter[] = [];

  constructor(idsMax: number) {
    this.#idsMax = idsMax;
  }

  get inFlight(): number {
    const { served, failed, aborted, cut } = this.#ended;
    return this.#started - served - failed - aborted - cut;
  }

  begin(id: string, path: string, bodyBytes: number): AttemptRecord {
    const record: AttemptRecord = {
      seq: this.#started++,
      id,
      nonce: '',
      path,
      start: nowMs(),
      bodyBytes,
      startToken: 0,
      tokens: 0,
      status: 0,
      end: 'open',
      endAt: 0,
      abortAt: 0,
      fault: '',
      head: '',
      bodySha256: '',
    };
    this.#ledger[record.seq % LEDGER_ATTEMPTS_MAX] = record;
    if (id !== '') this.#countId(id);
    this.changed();
    return record;
  }

  end(record: AttemptRecord, end: Exclude<AttemptEnd, 'open'>): void {
    assert(record.end === 'open', 'an attempt ends once');
    record.end = end;
    record.endAt = nowMs();
    this.#ended[end]++;
    if (end === 'aborted') {
      record.abortAt = record.endAt;
      this.#lastAbortAt = record.endAt;
    }
    this.changed();
  }

  /** Wakes those who wait for a state; called after every change that a test may wait for. */
  changed(): void {
    if (this.#waiters.length === 0) return;
    const snapshot = this.snapshot();
    const still: Waiter[] = [];
    for (const waiter of this.#waiters) {
      if (waiter.wanted(snapshot)) waiter.resolve();
      else still.push(waiter);
    }
    this.#waiters = still;
  }

  /** Resolves once the statistics are as wanted; at once when they are. */
  until(wanted: (stats: StatsSnapshot) => boolean): Promise<void> {
    if (wanted(this.snapshot())) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ wanted, resolve });
    });
  }

  /** How often an id came. */
  countOf(id: string): number {
    return this.#ids.get(id) ?? 0;
  }

  ids(): Record<string, number> {
    return Object.fromEntries(this.#ids);
  }

  /** Attempts of an id or nonce, oldest first; all of them without one. */
  ledger(idOrNonce: string | undefined, limit: number): AttemptRecord[] {
    const found = this.#ledger.filter(
      ({ id, nonce }) => idOrNonce === undefined || id === idOrNonce || nonce === idOrNonce,
    );
    return found.sort((a, b) => a.seq - b.seq).slice(-limit);
  }

  snapshot(): StatsSnapshot {
    return {
      started: this.#started,
      served: this.#ended.served,
      failed: this.#ended.failed,
      aborted: this.#ended.aborted,
      cut: this.#ended.cut,
      in_flight: this.inFlight,
      running: this.running,
      waiting: this.waiting,
      held: this.held,
      tokens_emitted: this.tokensEmitted,
      prompt_tokens: this.promptTokens,
      continuations: this.continuations,
      continuation_mismatches: this.continuationMismatches,
      faults_applied: this.faultsApplied,
      bad_requests: this.badRequests,
      connections: this.connections,
      connections_total: this.connectionsTotal,
      last_abort_at: this.#lastAbortAt,
      ids: this.#ids.size,
      ids_dropped: this.#idsDropped,
      ids_repeated: this.#idsRepeated,
      repeated: this.#repeated(),
    };
  }

  #countId(id: string): void {
    const times = this.#ids.get(id) ?? 0;
    if (times === 0 && this.#ids.size >= this.#idsMax) {
      const oldest = this.#ids.keys().next().value;
      if (oldest !== undefined) this.#ids.delete(oldest);
      this.#idsDropped++;
    }
    if (times === 1) this.#idsRepeated++;
    this.#ids.set(id, times + 1);
  }

  #repeated(): Record<string, number> {
    const repeated: [string, number][] = [];
    if (this.#idsRepeated === 0) return {};
    for (const entry of this.#ids) {
      if (entry[1] > 1 && repeated.push(entry) >= REPEATED_SHOWN_MAX) break;
    }
    return Object.fromEntries(repeated);
  }
}
