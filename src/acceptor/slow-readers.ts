/**
 * Cuts the client that holds the most memory by reading slowly, one for each sample of the main thread
 * that asks for it. Acceptor threads; never blocks.
 *
 * A slow reader has taken nothing since the sample before: a connection that is full for a moment only
 * is left alone, and so is one that holds less than half a window, which gives nothing back. The whole table is looked at, four times a second, in an emergency only.
 */
import { errors } from '../errors/catalogue.ts';
import { OverloadAction } from '../shm/control.layout.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { SlowReader } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { isDegraded } from './overload.ts';
import type { Request } from './request.ts';

export class SlowReaders {
  readonly #state: AcceptorState;
  /** The word of the sample last acted on. */
  #seen = 0;

  constructor(state: AcceptorState) {
    this.#state = state;
  }

  look(): void {
    const { control, metrics: counters } = this.#state;
    if (!isDegraded(this.#state, OverloadAction.cutSlowReaders)) return;
    const word = Atomics.load(control.words, control.overload);
    if (word === this.#seen) return;
    this.#seen = word;
    const request = this.#largest();
    if (request === undefined) return;
    request.cutFor = errors.SLOW_READER;
    counters.add(metrics.slowReadersCut, SlowReader.overload, 1);
    request.exchange.cut();
  }

  #largest(): Request | undefined {
    let largest: Request | undefined;
    let most = this.#state.start.streamWindow / 2;
    for (const request of this.#state.requests) {
      if (request === undefined || request.isGone || !request.exchange.isBlocked) continue;
      const { exchange, outbox } = request;
      const taken = outbox.takenBytes;
      const isStill = taken === request.seenTaken;
      request.seenTaken = taken;
      const bytes = outbox.keptBytes + exchange.unconfirmedBytes;
      if (!isStill || bytes <= most) continue;
      largest = request;
      most = bytes;
    }
    return largest;
  }
}
