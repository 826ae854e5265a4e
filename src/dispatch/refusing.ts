/**
 * Refusing: a request ends without an answer of a replica. Pure.
 *
 * It neither waits nor runs any more, and what it held of the retry budget is free. The client is told
 * what would help: when the first of the paused replicas resumes, or by how much its deadline is short.
 */
import { assert } from '../lib/assert.ts';
import { type DecisionSink, Refusal } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Quotas } from './quotas.ts';
import { Phase, type Requests } from './requests.ts';
import type { Retries } from './retries.ts';

/** Longest advice that is given. */
const waitMsMax = 24 * 3_600_000;

export interface RefusingParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly retries: Retries;
  readonly quotas: Quotas;
}

export class Refusing {
  readonly #parts: RefusingParts;
  readonly #sink: DecisionSink;

  constructor(parts: RefusingParts, sink: DecisionSink) {
    this.#parts = parts;
    this.#sink = sink;
  }

  refuse(slot: number, refusal: Refusal, nowUs: number, retryAfterMs = 0): void {
    const { requests, fleet } = this.#parts;
    this.close(slot, nowUs);
    if (refusal === Refusal.limited) {
      const { kind, waitUs } = this.#parts.quotas;
      this.#sink.refuse(slot, refusal, kind, Math.min(Math.ceil(waitUs / 1000), waitMsMax));
    } else if (refusal === Refusal.busy) {
      // The outlook that led here said `paused`: its first replica to resume is what to wait for.
      const { pauseEndUs, pauseError } = fleet.cluster(requests.model[slot] as number);
      const waitMs = Math.max(1, Math.ceil((pauseEndUs - nowUs) / 1000));
      this.#sink.refuse(slot, refusal, pauseError, waitMs);
    } else {
      const error = refusal === Refusal.failed ? (requests.lastError[slot] as number) : 0;
      this.#sink.refuse(slot, refusal, error, retryAfterMs);
    }
  }

  /** Refuses a request whose first token would come so much too late; not above 0: in time. */
  refuseLate(slot: number, lateUs: number, nowUs: number): boolean {
    if (lateUs <= 0) return false;
    this.refuse(slot, Refusal.tooLate, nowUs, Math.ceil(lateUs / 1000));
    return true;
  }

  /** The request is over for the brain. */
  close(slot: number, nowUs: number): void {
    assert(this.#parts.requests.phase[slot] === Phase.idle, 'it neither waits nor runs');
    this.#parts.retries.close(slot);
    this.#parts.quotas.close(slot, (this.#parts.requests.attempt[slot] as number) > 0, nowUs);
  }
}
