/**
 * The clocks of an attempt, and the one coarse timer that reads them all. Forwarder threads.
 *
 * Each clock has its own meaning: connect, first token (of a stream) or answer (of a request that does
 * not stream, of which engines send nothing before its end), inter-token, total. Headers and comments
 * are not progress; silence while the client has no room is not the replica's. There is no timer per
 * request: every `tickMs` all attempts are looked at, and time in which this thread itself stood still
 * (SIGSTOP, a long turn) is taken out of the verdicts.
 */
import type { Bag, Bagged } from '../lib/bag.ts';
import { nowUs } from '../lib/clock.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import { type Failure, failures, Stage } from './failure.ts';

/** Limits of one attempt. */
export interface ClockLimits {
  readonly connectUs: number;
  readonly firstTokenUs: number;
  readonly answerUs: number;
  readonly interTokenUs: number;
  readonly totalUs: number;
}

const tickMs = 50;
/** A tick this late tells of a stall of our own. */
const stallUs = 250_000;

/** What a request says of its time. */
export interface RequestTime {
  readonly deadlineUs: number;
  /** The client allows less than `timeouts.total`: a replica that needs more has not failed. */
  readonly isOwnDeadline: boolean;
  /** The client asked for a stream. */
  readonly streams: boolean;
}

export class AttemptClock {
  readonly #limits: ClockLimits;
  readonly #deadlineUs: number;
  readonly #isOwnDeadline: boolean;
  /** Longest wait for the first content. */
  readonly #contentUs: number;
  #sinceUs: number;
  #hasToken = false;

  constructor(limits: ClockLimits, us: number, request: RequestTime) {
    this.#limits = limits;
    this.#contentUs = request.streams ? limits.firstTokenUs : limits.answerUs;
    this.#sinceUs = us;
    this.#deadlineUs = request.deadlineUs;
    this.#isOwnDeadline = request.isOwnDeadline;
  }

  /** The silence begins again, as at a new stage or when a client has room again. */
  restart(us: number): void {
    this.#sinceUs = us;
  }

  /** The first token is waited for anew: what came is of no use. */
  startAgain(us: number): void {
    this.#hasToken = false;
    this.#sinceUs = us;
  }

  token(us: number): void {
    this.#hasToken = true;
    this.#sinceUs = us;
  }

  /** A sign of life that is no content: it counts between tokens, not before the first. */
  sign(us: number): void {
    if (this.#hasToken) this.#sinceUs = us;
  }

  forgive(gapUs: number): void {
    this.#sinceUs += gapUs;
  }

  silentUs(us: number): number {
    return us - this.#sinceUs;
  }

  isPastDeadline(us: number): boolean {
    return us > this.#deadlineUs;
  }

  /** What it means that the deadline is over. */
  deadlineFailure(paused: boolean): Failure {
    return paused || this.#isOwnDeadline ? failures.clientDeadline : failures.deadline;
  }

  /** The clock that ran out at `us`, if any. `paused`: the client has no room for what is there. */
  verdict(us: number, stage: Stage, paused: boolean): Failure | undefined {
    if (this.isPastDeadline(us)) return this.deadlineFailure(paused);
    if (paused) return undefined;
    const silent = us - this.#sinceUs;
    const { connectUs, interTokenUs } = this.#limits;
    if (stage === Stage.connecting) return silent > connectUs ? failures.connectTimeout : undefined;
    if (this.#hasToken) return silent > interTokenUs ? failures.interTokenTimeout : undefined;
    if (silent <= this.#contentUs) return undefined;
    return stage === Stage.sent ? failures.headersTimeout : failures.firstTokenTimeout;
  }
}

/** The clock of an attempt that begins at `us`, by what its slot says of the request. */
export function clockOf(
  slots: RequestSlots,
  slot: number,
  limits: ClockLimits,
  us: number,
): AttemptClock {
  const { words, at } = slots;
  const row = slots.row(slot);
  const ownUs = (words[row + at.deadlineMs] as number) * 1000;
  return new AttemptClock(limits, us, {
    deadlineUs: slots.deadlineUs(slot, limits.totalUs),
    isOwnDeadline: ownUs > 0 && ownUs < limits.totalUs,
    streams: ((words[row + at.flags] as number) & RequestFlag.stream) !== 0,
  });
}

export interface Clocked extends Bagged {
  check(us: number): void;
  forgive(gapUs: number): void;
}

export class Clocks {
  readonly #clocked: Bag<Clocked>;
  readonly #timer: NodeJS.Timeout;
  #lastUs = nowUs();

  constructor(clocked: Bag<Clocked>) {
    this.#clocked = clocked;
    this.#timer = setInterval(() => this.#tick(), tickMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const us = nowUs();
    const lateUs = us - this.#lastUs - tickMs * 1000;
    this.#lastUs = us;
    if (lateUs > stallUs) this.#clocked.visitAll((item) => item.forgive(lateUs));
    this.#clocked.visitAll((item) => item.check(us));
  }
}
