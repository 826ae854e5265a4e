/**
 * Quotas: whether the limits of its tenant let a request in. Pure.
 *
 * Asked once, before a request may run or wait: what it takes then it keeps over all its attempts, and
 * under the next brain as well, for its taking is told to the sink.
 */
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import { type DecisionSink, Refusal, type Release, Verdict } from './decisions.ts';
import { type LimitKind, type LimitRows, Limits, unlimitedRows } from './limits.ts';
import type { Placement } from './placement.ts';

export class Quotas {
  readonly #limits: Limits;
  readonly #placement: Placement;
  readonly #sink: DecisionSink;

  constructor(
    rows: LimitRows | undefined,
    slots: number,
    placement: Placement,
    sink: DecisionSink,
  ) {
    this.#limits = new Limits(rows ?? unlimitedRows, slots);
    this.#placement = placement;
    this.#sink = sink;
  }

  /** Why the last one was not let in, and when it would be; microseconds, 0: nobody knows. */
  get kind(): LimitKind {
    return this.#limits.kind;
  }

  get waitUs(): number {
    return this.#limits.waitUs;
  }

  /** Why the request is not let in, its deadline included; NONE when it is. */
  whyNot(arrival: Arrival, nowUs: number): Refusal | typeof NONE {
    const isLimited = arrival.limitRow !== NONE || arrival.limitModelRow !== NONE;
    const hasTaken = isLimited && this.restore(arrival, false);
    if (nowUs >= arrival.deadlineUs) return Refusal.deadline;
    if (!isLimited || hasTaken) return NONE;
    const promptTokens = this.#placement.promptTokens(arrival);
    const output = this.#placement.outputAllowance(arrival);
    if (!this.#limits.admit(arrival, promptTokens, output, nowUs)) return Refusal.limited;
    this.#sink.admitted(arrival.slot, promptTokens, output);
    return NONE;
  }

  /** Takes over what the request took under an earlier brain. False: nothing. */
  restore(arrival: Arrival, hasBegun: boolean): boolean {
    if (arrival.takenInput < 0) return false;
    this.#limits.hold(arrival, arrival.takenInput, arrival.takenOutput);
    if (hasBegun) this.#limits.began(arrival.slot);
    return true;
  }

  began(slot: number): void {
    this.#limits.began(slot);
  }

  /** A part of an answer has reached its client, whole or not. */
  answered(release: Release): void {
    const { slot, settled, continues, verdict, refused, promptTokens, completionTokens } = release;
    // An answer in one piece does not begin before it ends.
    if (settled && verdict === Verdict.good && !refused) this.#limits.began(slot);
    // Who left had the prompt read, and was billed for no more than came.
    if (settled && verdict === Verdict.none) {
      this.#limits.used(slot, promptTokens, Math.max(0, completionTokens));
    } else if (continues ? completionTokens >= 0 : settled) {
      // An attempt that was to go on and gave nothing says nothing.
      this.#limits.used(slot, promptTokens, completionTokens);
    }
  }

  /** A request of an earlier brain that is over: what it did not use comes back. Below 0: not known. */
  settle(arrival: Arrival, promptTokens: number, completionTokens: number, nowUs: number): void {
    if (!this.restore(arrival, true)) return;
    this.#limits.used(arrival.slot, promptTokens, completionTokens);
    this.close(arrival.slot, true, nowUs);
  }

  /** What became of the request will not be known. */
  lose(slot: number): void {
    this.#limits.lose(slot);
  }

  /** The request is over. */
  close(slot: number, isAsked: boolean, nowUs: number): void {
    if (this.#limits.close(slot, isAsked, nowUs)) this.#sink.settledLimits(slot);
  }
}
