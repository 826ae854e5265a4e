/**
 * What the gateway answers by itself: liveness, readiness, the model list, preflights. Acceptor threads.
 *
 * Readiness is read from shared memory at the moment of the question. The model list comes from the
 * config and never asks a replica.
 */

import type { ModelRef } from '../config/model-names.ts';
import { errors } from '../errors/catalogue.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import type { Route } from '../protocol/routes.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { commonHeaders, errorAnswer } from './answers.ts';
import { mayUse } from './key-ring.ts';
import { answerBytesMax, Closing, type Exchange, type ExchangePeer } from './listener.ts';
import { Outbox } from './outbox.ts';
import type { RequestFacts } from './request.ts';
import { countAnswer } from './request-metrics.ts';

const encoder = new TextEncoder();
const allowedMethods = 'GET, POST, DELETE, HEAD, OPTIONS';
const allowedHeaders = '*, authorization';
const preflightSeconds = '600';

export function answerLocally(
  state: AcceptorState,
  route: Route,
  parameter: string,
  facts: RequestFacts,
  exchange: Exchange,
): ExchangePeer | undefined {
  switch (route.action) {
    case 'models':
      return answerJson(state, exchange, facts, 200, modelList(state, facts));
    case 'model':
      return answerModel(state, parameter, facts, exchange);
    case 'ready': {
      const problem = state.readiness.problem();
      const status = problem === '' ? 200 : 503;
      return answerJson(state, exchange, facts, status, {
        status: problem === '' ? 'ready' : problem,
      });
    }
    default:
      return answerJson(state, exchange, facts, 200, { status: 'ok' });
  }
}

/** Undefined when the answer fits one burst, else the peer that streams it. */
function answerJson(
  state: AcceptorState,
  exchange: Exchange,
  facts: RequestFacts,
  status: number,
  value: object,
): ExchangePeer | undefined {
  count(state, facts, status);
  const headers = [...commonHeaders(facts), 'content-type', 'application/json'];
  const body = encoder.encode(JSON.stringify(value));
  if (body.length > answerBytesMax) return new LongAnswer(state, exchange, status, headers, body);
  exchange.answerAndClose(status, headers, body);
  return undefined;
}

const count = (state: AcceptorState, { route, arrivedUs }: RequestFacts, status: number): void =>
  countAnswer(state, route, route?.method ?? '', status, (nowUs() - arrivedUs) / 1000);

/** Streams a body that is larger than one burst, from a later turn of the loop. */
class LongAnswer implements ExchangePeer {
  readonly #exchange: Exchange;
  readonly #outbox: Outbox;

  constructor(
    state: AcceptorState,
    exchange: Exchange,
    status: number,
    headers: string[],
    body: Uint8Array,
  ) {
    this.#exchange = exchange;
    this.#outbox = new Outbox(exchange);
    exchange.closing = Closing.force;
    setImmediate(() => {
      try {
        faultPoint('later');
        exchange.begin(status, headers);
        this.#outbox.send(body, 0, body.length, true);
        this.#endIfSent();
      } catch (error) {
        state.failed(error);
        exchange.cut();
      }
    });
  }

  body(): void {}

  writable(): void {
    this.#outbox.flush(true);
    this.#endIfSent();
  }

  gone(): void {
    this.#outbox.clear();
  }

  #endIfSent(): void {
    if (this.#outbox.keptBytes === 0 && !this.#exchange.isBlocked) this.#exchange.end();
  }
}

export function answerPreflight(facts: RequestFacts, exchange: Exchange): void {
  const headers = commonHeaders(facts);
  headers.push('access-control-allow-methods', allowedMethods);
  headers.push('access-control-allow-headers', allowedHeaders);
  headers.push('access-control-max-age', preflightSeconds, 'allow', allowedMethods);
  exchange.answerAndClose(204, headers, new Uint8Array(0));
}

interface ModelObject {
  readonly id: string;
  readonly object: 'model';
  readonly created: number;
  readonly owned_by: string;
  /** Of an adapter: the model it belongs to, as vLLM tells it. */
  readonly parent?: string | undefined;
}

function modelObject({ start }: AcceptorState, id: string, { model, adapter }: ModelRef) {
  const parent = adapter === 0 ? undefined : start.models[model]?.name;
  const object: ModelObject = { id, object: 'model', created: 0, owned_by: 'sluice', parent };
  return object;
}

/** Those that the key of the request may ask for. */
function modelList(state: AcceptorState, facts: RequestFacts): object {
  const { holder } = facts;
  const data = [...facts.models.names.byName]
    .filter(([, { model, adapter }]) => holder === undefined || mayUse(holder, model, adapter))
    .map(([id, named]) => modelObject(state, id, named));
  return { object: 'list', data };
}

function answerModel(
  state: AcceptorState,
  id: string,
  facts: RequestFacts,
  exchange: Exchange,
): ExchangePeer | undefined {
  const named = facts.models.names.byName.get(id);
  const { holder } = facts;
  const mayAsk = named && (holder === undefined || mayUse(holder, named.model, named.adapter));
  if (named !== undefined && mayAsk) {
    return answerJson(state, exchange, facts, 200, modelObject(state, id, named));
  }
  const { status, headers, body } = errorAnswer(errors.MODEL_NOT_FOUND, facts);
  count(state, facts, status);
  exchange.answerAndClose(status, headers, body);
  return undefined;
}
