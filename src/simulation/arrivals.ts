/**
 * Arrivals: which request is sent next, and when. Pure.
 *
 * Open loop: when the workload says, whatever the system does. Closed loop: a turn of a chat also
 * waits until the one before it has ended, plus a time to think.
 */
import { NO_REQUEST, type Workload } from './workload.ts';

export class Arrivals {
  readonly #workload: Workload;
  readonly #thinkUs: number | undefined;
  #next = 0;
  /** Closed loop only. When each request ended; the turns that wait for it, as a list. */
  readonly #endedUs: Float64Array;
  readonly #firstWaiter: Int32Array;
  readonly #nextWaiter: Int32Array;
  /** Turns whose time to think has begun; ends come in order of time, so the times ascend. */
  readonly #thinking: { readonly us: number; readonly request: number }[] = [];
  #thinkingFrom = 0;

  constructor(workload: Workload, thinkUs: number | undefined) {
    this.#workload = workload;
    this.#thinkUs = thinkUs;
    const count = thinkUs === undefined ? 0 : workload.count;
    this.#endedUs = new Float64Array(count).fill(Number.POSITIVE_INFINITY);
    this.#firstWaiter = new Int32Array(count).fill(NO_REQUEST);
    this.#nextWaiter = new Int32Array(count).fill(NO_REQUEST);
  }

  /** When take() has a request to give; Infinity when that depends on answers still to come. */
  get nextUs(): number {
    return Math.min(this.#nextOfTrace, this.#nextOfThinking);
  }

  /** The request that is due at nextUs; NO_REQUEST when it has to wait for an answer. */
  take(): number {
    const thinking = this.#thinking[this.#thinkingFrom];
    if (thinking !== undefined && thinking.us <= this.#nextOfTrace) {
      this.#thinkingFrom++;
      return thinking.request;
    }
    const request = this.#next++;
    return this.#hasToWait(request) ? NO_REQUEST : request;
  }

  /** The request has ended, one way or the other. */
  ended(request: number, nowUs: number): void {
    if (this.#thinkUs === undefined) return;
    this.#endedUs[request] = nowUs;
    let waiter = this.#firstWaiter[request] as number;
    for (; waiter !== NO_REQUEST; waiter = this.#nextWaiter[waiter] as number) {
      this.#thinking.push({ us: nowUs + this.#thinkUs, request: waiter });
    }
  }

  get #nextOfTrace(): number {
    const { count, arrivalUs } = this.#workload;
    return this.#next < count ? (arrivalUs[this.#next] as number) : Number.POSITIVE_INFINITY;
  }

  get #nextOfThinking(): number {
    return this.#thinking[this.#thinkingFrom]?.us ?? Number.POSITIVE_INFINITY;
  }

  #hasToWait(request: number): boolean {
    const previous = this.#workload.previous[request] as number;
    if (this.#thinkUs === undefined || previous === NO_REQUEST) return false;
    if ((this.#endedUs[previous] as number) <= (this.#workload.arrivalUs[request] as number)) {
      return false;
    }
    this.#nextWaiter[request] = this.#firstWaiter[previous] as number;
    this.#firstWaiter[previous] = request;
    return true;
  }
}
