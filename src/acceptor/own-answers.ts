/**
 * Answers of the gateway itself to requests that have a slot: 200 with a JSON body of any size. Acceptor
 * threads; never blocks.
 *
 * No other thread has heard of the request: its slot is being read until the client has taken or left the
 * answer. A client that leaves before is recorded as gone, like any other (responder.ts).
 */
import type { AcceptorState } from './acceptor-state.ts';
import { commonHeaders } from './answers.ts';
import { announceClosing } from './closing.ts';
import { answerBytesMax } from './listener.ts';
import { Phase, type Request } from './request.ts';
import type { Settlement } from './settlement.ts';

const status = 200;

export class OwnAnswers {
  readonly #state: AcceptorState;
  readonly #settlement: Settlement;

  constructor(state: AcceptorState, settlement: Settlement) {
    this.#state = state;
    this.#settlement = settlement;
  }

  send(request: Request, body: Uint8Array): void {
    const { exchange, facts, outbox } = request;
    announceClosing(this.#state, exchange);
    const headers = [...commonHeaders(facts), 'content-type', 'application/json'];
    if (body.length <= answerBytesMax) {
      exchange.answer(status, headers, body);
      this.#finish(request);
      return;
    }
    request.isOwn = true;
    exchange.begin(status, headers);
    outbox.send(body, 0, body.length, true);
    this.#endIfSent(request);
  }

  writable(request: Request): void {
    request.outbox.flush(true);
    this.#endIfSent(request);
  }

  #endIfSent(request: Request): void {
    const { exchange, outbox } = request;
    if (request.phase !== Phase.reading || outbox.keptBytes > 0 || exchange.isBlocked) return;
    exchange.end();
    if (!exchange.isBlocked) this.#finish(request);
  }

  #finish(request: Request): void {
    this.#settlement.abandon(request);
    this.#settlement.recordOwn(request, status);
  }
}
