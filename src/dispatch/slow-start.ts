/**
 * Slow start: a replica that is back, or that joins others at work, is given its share step by step: its
 * caches are cold, and to whoever counts it is the emptiest of all. Of one model. Pure.
 *
 *   given to it <= 1 + ramp * given to all since then / replicas
 *   ramp        from 0.5 to 1.5 times a fair share over `slowStartUs`
 *
 * It is no limit where nobody else can take a request (placement.ts), and no start is slow in a cluster
 * that has just begun itself.
 */
import { assert } from '../lib/assert.ts';

const rampStart = 0.5;
const rampEnd = 1.5;

interface Start {
  readonly sinceUs: number;
  /** Given to all when it began, and to the replica since. */
  readonly givenToAll: number;
  given: number;
}

export class SlowStart {
  readonly #slowStartUs: number;
  /** By row. */
  readonly #starts = new Map<number, Start>();
  #given = 0;
  /** When the first replica was there. */
  #firstUs = Number.POSITIVE_INFINITY;

  /** 0: every start is a full one. */
  constructor(slowStartUs: number) {
    this.#slowStartUs = slowStartUs;
  }

  get isIdle(): boolean {
    return this.#starts.size === 0;
  }

  /** The replica may be given requests from now on. Returns when its start is over; 0: it is a full one. */
  begin(row: number, nowUs: number): number {
    this.#firstUs = Math.min(this.#firstUs, nowUs);
    if (nowUs - this.#firstUs < this.#slowStartUs || this.#slowStartUs === 0) return 0;
    this.#starts.set(row, { sinceUs: nowUs, givenToAll: this.#given, given: 0 });
    return this.endUs(row);
  }

  /** It may be given nothing any more. */
  end(row: number): void {
    this.#starts.delete(row);
  }

  isStarting(row: number): boolean {
    return this.#starts.has(row);
  }

  /** When its start is over; 0: it is. */
  endUs(row: number): number {
    const start = this.#starts.get(row);
    return start === undefined ? 0 : start.sinceUs + this.#slowStartUs;
  }

  took(row: number): void {
    this.#given++;
    const start = this.#starts.get(row);
    if (start !== undefined) start.given++;
  }

  /** It has had its part for the moment. */
  hasEnough(row: number, replicas: number, nowUs: number): boolean {
    const start = this.#starts.get(row);
    assert(start !== undefined, 'it is starting');
    const passed = Math.min(1, (nowUs - start.sinceUs) / this.#slowStartUs);
    const ramp = rampStart + (rampEnd - rampStart) * passed;
    const share = (this.#given - start.givenToAll) / Math.max(1, replicas);
    return start.given >= 1 + ramp * share;
  }

  /** True when its start is over at `nowUs`, which ends it. */
  expire(row: number, nowUs: number): boolean {
    const endUs = this.endUs(row);
    if (endUs === 0 || nowUs < endUs) return false;
    this.end(row);
    return true;
  }
}
