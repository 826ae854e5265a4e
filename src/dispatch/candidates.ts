/**
 * Candidates: the replicas that may be given a request right now, as dense arrays for a policy.
 *
 * Membership is the filter of *filter -> score -> pick* (fleet.ts keeps it current as replicas fill,
 * empty, pause or leave), so a pick scans only what it may choose. Rows are in ascending order: the
 * same events give the same order and the same decisions. Pure; allocates at construction only.
 */
import { assert } from '../lib/assert.ts';

/** No replica, no slot, no index. */
export const NONE = -1;

/** What a policy may weigh of a replica. */
export interface ReplicaLoad {
  /** Requests it has: ours in flight and those of other clients. */
  readonly inFlight: number;
  /** Relative share, above 0. */
  readonly weight: number;
  /** Prompt tokens it was given, does not hold and has not shown the first token of: work that waits. */
  readonly pendingTokens: number;
  /** Tokens of those requests in its KV cache: what its decode steps read. */
  readonly contextTokens: number;
  /** Tokens that still fit into its KV cache; Infinity where that is no limit. */
  readonly roomTokens: number;
  /** Microseconds per prompt token of prefill. */
  readonly prefillUs: number;
  /** Microseconds per resident token and decode step. */
  readonly residentUs: number;
}

export class Candidates {
  length = 0;
  /** Row of the replica table. */
  readonly row: Int32Array;
  readonly inFlight: Int32Array;
  readonly weight: Float64Array;
  readonly pendingTokens: Float64Array;
  readonly contextTokens: Float64Array;
  readonly roomTokens: Float64Array;
  readonly prefillUs: Float64Array;
  readonly residentUs: Float64Array;
  readonly #columns: readonly (Int32Array | Float64Array)[];
  /** Nobody is loaded less; set() keeps it low enough, a full scan makes it exact. */
  #floor = 0;

  constructor(capacity: number) {
    this.row = new Int32Array(capacity);
    this.inFlight = new Int32Array(capacity);
    this.weight = new Float64Array(capacity);
    this.pendingTokens = new Float64Array(capacity);
    this.contextTokens = new Float64Array(capacity);
    this.roomTokens = new Float64Array(capacity);
    this.prefillUs = new Float64Array(capacity);
    this.residentUs = new Float64Array(capacity);
    this.#columns = [
      this.row,
      this.inFlight,
      this.weight,
      this.pendingTokens,
      this.contextTokens,
      this.roomTokens,
      this.prefillUs,
      this.residentUs,
    ];
  }

  /** Index of `row`, or NONE. */
  indexOf(row: number): number {
    const index = this.lowerBound(row);
    return index < this.length && this.row[index] === row ? index : NONE;
  }

  /** First index whose row is `row` or above; `length` when there is none. */
  lowerBound(row: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.row[middle] as number) < row) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Adds a replica, or renews what is known of it. */
  set(row: number, load: ReplicaLoad): void {
    const index = this.lowerBound(row);
    if (index === this.length || this.row[index] !== row) {
      assert(this.length < this.row.length, 'candidates fit');
      for (const column of this.#columns) column.copyWithin(index + 1, index, this.length);
      this.length++;
    }
    this.#write(index, row, load);
  }

  /** Adds a replica with a higher row than all there are. */
  append(row: number, load: ReplicaLoad): void {
    this.#write(this.length++, row, load);
  }

  #write(index: number, row: number, load: ReplicaLoad): void {
    if (load.inFlight < this.#floor) this.#floor = load.inFlight;
    this.row[index] = row;
    this.inFlight[index] = load.inFlight;
    this.weight[index] = load.weight;
    this.pendingTokens[index] = load.pendingTokens;
    this.contextTokens[index] = load.contextTokens;
    this.roomTokens[index] = load.roomTokens;
    this.prefillUs[index] = load.prefillUs;
    this.residentUs[index] = load.residentUs;
  }

  /** Removes a replica; nothing happens when it is no candidate. */
  delete(row: number): void {
    const index = this.indexOf(row);
    if (index === NONE) return;
    for (const column of this.#columns) column.copyWithin(index, index + 1, this.length);
    this.length--;
  }

  /**
   * Index of the least loaded, the first one at or cyclically behind `start`; there is at least one.
   * The scan ends at the first whose load is the floor, which on a balanced fleet is soon.
   */
  leastLoadedFrom(start: number): number {
    assert(start < this.length, 'the scan starts at a candidate');
    const { inFlight, length } = this;
    const floor = this.#floor;
    let best = start;
    let least = inFlight[start] as number;
    if (least === floor) return start;
    for (let i = start + 1; i < length; i++) {
      const load = inFlight[i] as number;
      if (load < least) {
        if (load === floor) return i;
        least = load;
        best = i;
      }
    }
    for (let i = 0; i < start; i++) {
      const load = inFlight[i] as number;
      if (load < least) {
        if (load === floor) return i;
        least = load;
        best = i;
      }
    }
    this.#floor = least;
    return best;
  }

  clear(): void {
    this.length = 0;
  }
}
