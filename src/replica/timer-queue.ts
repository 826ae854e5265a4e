/**
 * All timers of a simulated replica behind one Node timer, in whole milliseconds.
 *
 * Entries of one millisecond share a bucket and one wake-up, so a thousand streams of 20 ms steps
 * cost at most fifty wake-ups a stream-second together. Runs on the replica's event loop.
 * Invariant: the Node timer is armed for the earliest bucket, or not at all when there is none.
 */
import { nowMs } from '../lib/clock.ts';

export interface TimerEntry {
  /** Called once, at or after the requested time, unless cancelled. */
  onTimer(now: number): void;
}

export class TimerQueue {
  #buckets = new Map<number, Set<TimerEntry>>();
  /** Binary heap of the bucket times. */
  #times: number[] = [];
  #armedAt = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  readonly #fire = (): void => this.#run();

  /** Calls `entry` at `at` (nowMs clock); returns the bucket to cancel it with. */
  add(entry: TimerEntry, at: number): number {
    const tick = Math.ceil(at);
    const bucket = this.#buckets.get(tick);
    if (bucket !== undefined) {
      bucket.add(entry);
      return tick;
    }
    this.#buckets.set(tick, new Set([entry]));
    this.#push(tick);
    if (tick < this.#armedAt) this.#arm(tick);
    return tick;
  }

  cancel(entry: TimerEntry, tick: number): void {
    this.#buckets.get(tick)?.delete(entry);
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#buckets.clear();
    this.#times = [];
    this.#armedAt = Number.POSITIVE_INFINITY;
  }

  #arm(tick: number): void {
    clearTimeout(this.#timer);
    this.#armedAt = tick;
    // Node clamps a longer delay to 1 ms; the run re-arms for the rest.
    const delay = Math.min(Math.max(1, Math.ceil(tick - nowMs())), 0x7fffffff);
    this.#timer = setTimeout(this.#fire, delay);
  }

  #run(): void {
    this.#armedAt = Number.POSITIVE_INFINITY;
    const now = nowMs();
    for (let first = this.#times[0]; first !== undefined && first <= now; first = this.#times[0]) {
      this.#pop();
      const bucket = this.#buckets.get(first);
      this.#buckets.delete(first);
      if (bucket !== undefined) for (const entry of bucket) entry.onTimer(now);
    }
    const next = this.#times[0];
    if (next !== undefined && next < this.#armedAt) this.#arm(next);
  }

  #push(tick: number): void {
    const heap = this.#times;
    let at = heap.length;
    heap.push(tick);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] ?? 0;
      if (above <= tick) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = tick;
  }

  #pop(): void {
    const heap = this.#times;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const right = heap[child + 1];
      const left = heap[child];
      if (left === undefined) break;
      if (right !== undefined && right < left) child++;
      const below = heap[child] ?? left;
      if (below >= last) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}
