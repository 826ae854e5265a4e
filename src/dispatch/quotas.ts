/**
 * Quotas: whether the limits of its tenant let a request in. Pure.
 *
 * Asked once, before a request may run or wait: what it takes then it keeps over all its attempts, and
 * under the next brain as well, for its taking is told to the sink. Where limits are shared with other
 * gateways and what is leased here does not do, the request waits for the store (quota-waits.ts).
 */
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import { type DecisionSink, Ended, Refusal, type Release, Verdict } from './decisions.ts';
import { Foreseen } from './foreseen.ts';
import type { SharedLimits } from './leases.ts';
import {
  Admission,
  type Limited,
  type LimitKind,
  type LimitRows,
  unlimitedRows,
} from './limit-rows.ts';
import { Limits } from './limits.ts';
import { QuotaWaits } from './quota-waits.ts';
import type { Requests } from './requests.ts';

/** The request waits for the store: `decided` will say. */
export const WAITS = -2;

/**
 * Of an answer in one piece that its client did not wait for nobody says what it had come to. Hardly an engine makes
 * a token of one in less: who leaves just before the end is charged for it, who leaves soon for little.
 */
const usPerTokenMin = 1000;

export interface QuotasParts {
  readonly limits: LimitRows | undefined;
  readonly shared: SharedLimits | undefined;
  readonly requests: Requests;
  readonly sink: DecisionSink;
  /** A request that waits for the store goes on, or is refused; it is still to leave(). */
  decided(slot: number, refusal: Refusal | typeof NONE, nowUs: number): void;
}

export class Quotas {
  readonly #limits: Limits;
  readonly #waits: QuotaWaits;
  readonly #foreseen: Foreseen;
  readonly #parts: QuotasParts;

  constructor(parts: QuotasParts) {
    const { limits, shared, requests } = parts;
    const rows = limits ?? unlimitedRows;
    this.#limits = new Limits(rows, requests.slots, shared);
    this.#foreseen = new Foreseen(rows, requests.slots);
    this.#waits = new QuotaWaits(requests.slots, requests, shared?.budgetUs ?? 0);
    this.#parts = parts;
  }

  /** Why the last one was not let in, and when it would be; microseconds, 0: nobody knows. */
  get kind(): LimitKind {
    return this.#limits.kind;
  }

  get waitUs(): number {
    return this.#limits.waitUs;
  }

  /** Somebody who waits for the store; NONE when nobody does. */
  get first(): number {
    return this.#waits.first;
  }

  /** When tick() has something to do; Infinity for never. */
  get nextUs(): number {
    return this.#limits.leases?.hasAnswer === true ? 0 : this.#waits.nextUs;
  }

  /** Why the request is not let in, its deadline included; NONE when it is; WAITS: nobody knows yet. */
  whyNot(arrival: Arrival, nowUs: number): Refusal | typeof NONE | typeof WAITS {
    this.#foreseen.note(arrival);
    const isLimited = arrival.limitRow !== NONE || arrival.limitModelRow !== NONE;
    const hasTaken = isLimited && this.restore(arrival, false);
    if (nowUs >= arrival.deadlineUs) return Refusal.deadline;
    if (!isLimited || hasTaken) return NONE;
    const promptTokens = this.#foreseen.input(arrival);
    const output = this.#foreseen.output(arrival);
    const refusal = this.#admit(arrival, promptTokens, output, nowUs, true);
    if (refusal === WAITS) this.#waits.enter(arrival, promptTokens, output, nowUs);
    return refusal;
  }

  /** Decides about those who have waited long enough, and about all once the store has answered. */
  tick(nowUs: number): void {
    const { leases } = this.#limits;
    if (leases === undefined) return;
    while (this.#waits.nextUs <= nowUs) this.#decide(this.#waits.first, true, nowUs);
    if (!leases.hasAnswer) return;
    leases.seeAnswers();
    const waits = this.#waits;
    // What is wanted is what those want who wait on.
    for (let slot = waits.first; slot !== NONE; slot = waits.after(slot)) {
      this.#limits.wantNothing(waits.limited(slot));
    }
    for (let slot = waits.first; slot !== NONE; ) {
      const next = waits.after(slot);
      this.#decide(slot, false, nowUs);
      slot = next;
    }
    this.#limits.balance(nowUs);
  }

  /** The wait for the store ends, however. Returns its length. */
  leave(slot: number, nowUs: number): number {
    const limited = this.#waits.limited(slot);
    this.#limits.decided(limited);
    const waitedUs = this.#waits.leave(slot, nowUs);
    if (this.#waits.length === 0) this.#limits.wantNothing(limited);
    return waitedUs;
  }

  /** Takes over what the request took under an earlier brain. False: nothing. */
  restore(arrival: Arrival, hasBegun: boolean): boolean {
    if (arrival.takenInput < 0) return false;
    this.#limits.hold(arrival, arrival.takenInput, arrival.takenOutput, arrival.takenLeased);
    if (hasBegun) this.#limits.began(arrival.slot);
    return true;
  }

  began(slot: number): void {
    this.#limits.began(slot);
  }

  /** An attempt has ended: what it came to is used, as far as anybody knows. */
  answered(release: Release, nowUs: number): void {
    const { slot, settled, continues, verdict, refused, ended } = release;
    const { promptTokens, completionTokens } = release;
    const { learntBytes, startedUs, streams } = this.#parts.requests;
    const isKnown = completionTokens >= 0;
    // An answer in one piece does not begin before it ends.
    if (settled && verdict === Verdict.good && !refused) this.#limits.began(slot);
    // Nobody asks again for who has left; an attempt that was to go on and gave nothing says nothing.
    const isLast = settled || ended === Ended.left;
    if (!(isLast || (continues && (isKnown || ended === Ended.lost)))) return;
    if (isKnown || ended === Ended.told) {
      this.#limits.used(slot, promptTokens, completionTokens);
      const isWhole = settled && !continues && ended === Ended.told;
      if (isWhole) this.#foreseen.learn(release, learntBytes[slot] as number);
    } else if (ended === Ended.lost) this.#limits.lose(slot);
    else {
      // A stream shows what it makes.
      const us = streams[slot] === 1 ? 0 : nowUs - (startedUs[slot] as number);
      this.#limits.left(slot, promptTokens, Math.ceil(us / usPerTokenMin));
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
    if (this.#limits.close(slot, isAsked, nowUs)) this.#parts.sink.settledLimits(slot);
  }

  #decide(slot: number, isOver: boolean, nowUs: number): void {
    const waits = this.#waits;
    const limited = waits.limited(slot);
    const [input, output] = [waits.inputTokens(slot), waits.outputTokens(slot)];
    const refusal = this.#admit(limited, input, output, nowUs, !isOver);
    // Others have taken it: what is left of its budget stays.
    if (refusal !== WAITS) this.#parts.decided(slot, refusal, nowUs);
  }

  #admit(
    limited: Limited,
    input: number,
    output: number,
    nowUs: number,
    mayAsk: boolean,
  ): Refusal | typeof NONE | typeof WAITS {
    const { slot } = limited;
    switch (this.#limits.admit(limited, input, output, nowUs, mayAsk)) {
      case Admission.refused:
        return Refusal.limited;
      case Admission.asks:
        this.#limits.ask(limited, this.#waits.asked, 2 * slot);
        return WAITS;
      case Admission.admitted:
        this.#parts.sink.admitted(slot, input, output, this.#limits.isLeased(slot));
        return NONE;
    }
  }
}
