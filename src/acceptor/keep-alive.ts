/**
 * Comments for clients that wait for the first byte of a stream: queued, connecting, in a retry or in a
 * long prefill. Acceptor threads; never blocks.
 *
 * The first comment brings the head of the answer, so that from then on the request can only end as an
 * event stream (ending.ts). A comment is no part of the answer: no clock, no credit and no count of
 * bytes or tokens sees it. One client has at most one that its connection has not taken. Requests are
 * looked at when they are due and not before; one that never waits so long costs a few stores.
 */
import { metrics } from '../telemetry/catalogue.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { commonHeaders, eventStreamType, pushStreamHeaders } from './answers.ts';
import { announceClosing } from './closing.ts';
import { Phase, type Request } from './request.ts';

const comment = new TextEncoder().encode(': keep-alive\n\n');
/** Clients served in one sweep, so that sockets are served in between. */
const commentsPerSweep = 256;

export class KeepAlive {
  readonly #state: AcceptorState;
  readonly #intervalUs: number;

  constructor(state: AcceptorState) {
    this.#state = state;
    this.#intervalUs = state.start.keepAlive * 1000;
  }

  /** Serves those that are due. Call many times in an interval. */
  sweep(us: number): void {
    const { failed, silent } = this.#state;
    for (let count = 0; count < commentsPerSweep; count++) {
      const request = silent.first;
      if (request === undefined || request.dueUs > us) return;
      silent.remove(request);
      try {
        this.#send(request);
      } catch (error) {
        failed(error);
        request.exchange.cut();
      }
      // The write may have shown that the client has left.
      if (request.phase === Phase.published && !request.isGone) {
        silent.add(request, us + this.#intervalUs);
      }
    }
  }

  #send(request: Request): void {
    const { exchange, facts, outbox } = request;
    if (!exchange.hasBegun) {
      announceClosing(this.#state, exchange);
      const headers = commonHeaders(facts);
      headers.push('content-type', eventStreamType);
      pushStreamHeaders(headers);
      request.status = 200;
      request.isEventStream = true;
      request.isKeptAlive = true;
      exchange.begin(request.status, headers);
    }
    if (exchange.isBlocked) return;
    outbox.sendAside(comment);
    this.#state.metrics.add(metrics.keepAliveComments, 0, 1);
  }
}
