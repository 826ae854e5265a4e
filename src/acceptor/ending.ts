/**
 * How an answer ends for its client, well or not. Acceptor threads; never blocks.
 *
 * Before its head an error is an answer of its own. Behind the head of an event stream it is an error
 * event without `[DONE]`, between two events only; anywhere else the connection is cut. A request whose
 * head was ours (keep-alive.ts) ends as a stream whatever its replica says; log and metrics then have
 * the status it would have had.
 */
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import { isBetweenEvents } from '../protocol/event-end.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { defaultMetricDims, modelIndex } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { errorAnswer, errorEvent, errorStatus, replicaErrorEvent } from './answers.ts';
import { announceClosing } from './closing.ts';
import { pushExplanation } from './explain-header.ts';
import { pushLimits } from './limit-headers.ts';
import { Closing } from './listener.ts';
import { Phase, type Request } from './request.ts';
import type { Settlement } from './settlement.ts';

export class Ending {
  readonly #state: AcceptorState;
  readonly #settlement: Settlement;

  constructor(state: AcceptorState, settlement: Settlement) {
    this.#state = state;
    this.#settlement = settlement;
  }

  /** The request has been settled with an error; the client is told as far as HTTP still allows. */
  withError(request: Request, entry: ErrorEntry, retryAfterMs: number): void {
    const { exchange, facts } = request;
    request.failure = entry;
    if (request.isKeptAlive) {
      request.status = errorStatus(entry, facts);
      this.#withEvent(request, errorEvent(entry, facts));
      return;
    }
    if (this.#isLeft(request)) return;
    if (exchange.hasBegun) {
      this.#countTruncated(request);
      this.#withEvent(request, errorEvent(entry, facts));
      return;
    }
    announceClosing(this.#state, exchange);
    const { status, headers, body } = errorAnswer(entry, facts, retryAfterMs);
    const attempts = this.#state.slots.attempts(request.slot);
    if (attempts > 0) {
      headers.push('x-sluice-attempts', String(attempts));
      // Who asks thrice for what was tried thrice makes nine calls of an outage.
      if (attempts > 1 && status === 502) headers.push('x-should-retry', 'false');
      pushExplanation(this.#state, request, headers);
    }
    pushLimits(this.#state, request, headers);
    request.status = status;
    exchange.answer(status, headers, body);
    this.#settlement.finish(request);
  }

  /** The replica has answered with something else, and its client has the head of a stream. */
  withoutStream(request: Request, body: Uint8Array): void {
    const { facts, status } = request;
    const entry = errors.NOT_A_STREAM;
    if (status < 400) {
      this.withError(request, entry, 0);
      return;
    }
    const message = `The replica answered with status ${status}.`;
    this.#withEvent(request, replicaErrorEvent(body, facts) ?? errorEvent(entry, facts, message));
  }

  ifComplete(request: Request): void {
    // A drain closes connections once no slot is in use, so the slot is held for what the socket holds.
    if (!request.isEnding || request.phase !== Phase.settled) return;
    const { outbox, exchange, isGone } = request;
    // A connection that is gone stays as blocked as it was.
    if (!isGone) {
      if (outbox.keptBytes > 0 || exchange.isBlocked) return;
      exchange.end();
      if (exchange.isBlocked) return; // by its last bytes
    }
    this.#settlement.finish(request);
  }

  #countTruncated({ isEventStream, model }: Request): void {
    if (!isEventStream) return;
    this.#state.metrics.add(metrics.streamTruncated, modelIndex(model, defaultMetricDims), 1);
  }

  #withEvent(request: Request, event: Uint8Array): void {
    const { exchange } = request;
    if (this.#isLeft(request)) return;
    if (!request.isEventStream || !isBetweenEvents(request.tail)) {
      // Cut short of its last chunk, so that the client sees that something is missing.
      this.#settlement.finish(request);
      exchange.cut();
      return;
    }
    exchange.closing = Closing.force;
    request.outbox.send(event, 0, event.length, true);
    request.isEnding = true;
    this.ifComplete(request);
  }

  /** Nobody is there to be told. */
  #isLeft(request: Request): boolean {
    if (!request.isGone && request.exchange.isOpen) return false;
    this.#settlement.finish(request);
    return true;
  }
}
