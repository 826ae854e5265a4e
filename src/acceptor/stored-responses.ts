/**
 * Requests about a response that one replica keeps: by its id, or to go on with it. Acceptor threads; never
 * blocks.
 *
 * The request is pinned to that replica before anybody else hears of it. What the table does not know goes
 * nowhere, unless nobody is asked for a key and there is only one replica that could have it. Whether a
 * response is somebody else's or nobody's makes no difference to the answer.
 */
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import type { RequestFacts as ScanFacts } from '../protocol/request-facts.ts';
import {
  ownerOf,
  responseIdMax,
  responseKeyWords,
  writeResponseKey,
} from '../protocol/response-key.ts';
import { responsesOf } from '../shm/memory.ts';
import { ReplicaLookup } from '../shm/replica-lookup.ts';
import { createKeeper, StoredResponses } from '../shm/stored-responses.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { ResponseEvent } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { type Holder, mayUse } from './key-ring.ts';
import type { ModelNames } from './model-names.ts';
import type { Request } from './request.ts';

const unknown =
  'The response is not known to this gateway. It was not stored, has been deleted or forgotten for newer ones, ' +
  'is not yours, or was made before the gateway started or by another one.';
const removed =
  'The replica that kept the response has been removed from the gateway, and nobody else has it.';

/** Of responses where nobody is asked for a key. */
export const nobodys: Int32Array = ownerOf('');

const ofHolder = (holder: Holder | undefined): Int32Array => holder?.owner ?? nobodys;

export class StoredResponseRequests {
  readonly #state: AcceptorState;
  readonly #table: StoredResponses;
  readonly #replicas: ReplicaLookup;
  readonly #key = new Int32Array(responseKeyWords);
  readonly #keeper = createKeeper();

  constructor(state: AcceptorState) {
    const { memory } = state.start;
    this.#state = state;
    this.#table = new StoredResponses(memory.responses, responsesOf(memory.size));
    this.#replicas = new ReplicaLookup(memory.replicas);
  }

  /** Pins a request by id, which names no model. 0, or an error number whose words are in `scan`. */
  pinById(request: Request, scan: ScanFacts): number {
    scan.errorParam = '';
    scan.errorMessage = '';
    const problem = this.#find(request, request.facts.responseId, -1, 'response_id', scan);
    if (problem !== 0) return problem;
    request.model = this.#keeper.model;
    this.#pin(request);
    return 0;
  }

  /** Pins a request that goes on with a response, and may use the model it asks for. As above. */
  pinNext(request: Request, scan: ScanFacts): number {
    const { holder } = request.facts;
    // Engines store under it: somebody else's response could be overwritten, or read before it is.
    if (scan.hasRequestId && holder !== undefined) {
      scan.errorParam = 'request_id';
      return errors.PARAM_NOT_ALLOWED.number;
    }
    if (scan.previousResponse === '') return 0;
    const param = 'previous_response_id';
    const problem = this.#find(request, scan.previousResponse, request.model, param, scan);
    if (problem !== 0) return problem;
    const { names } = request.facts.models;
    const { model, adapter } = this.#keeper;
    const asked = names.byName.get(scan.model);
    assert(asked !== undefined, 'its model was found');
    const chosen = request.model === model ? [request.adapter] : [];
    const served = names.reaching(asked, model, [adapter, ...chosen]);
    if (served === undefined) {
      scan.errorParam = param;
      scan.errorMessage =
        `The response is kept by a replica of the model ${names.nameOf(model, 0)}. ` +
        'Requests for the model that is asked for never go there, and its own replicas do not have it.';
      return errors.RESPONSE_NOT_FOUND.number;
    }
    request.model = served.model;
    request.adapter = served.adapter;
    request.isRenamed = names.isOfGateway(scan.model, served);
    this.#pin(request);
    return 0;
  }

  /** A response was deleted by whoever asked for it. */
  forget({ facts: { holder, responseId } }: Request): void {
    writeResponseKey(ofHolder(holder), 0, responseId, this.#key);
    this.#table.forget(this.#key);
    this.#count(ResponseEvent.deleted);
  }

  /** Finds who keeps the response, among the replicas of `model` where there is only one; -1: of all. */
  #find(
    { facts: { holder, models } }: Request,
    id: string,
    model: number,
    param: string,
    scan: ScanFacts,
  ): number {
    const keeper = this.#keeper;
    const isId = id.length <= responseIdMax;
    if (isId) writeResponseKey(ofHolder(holder), 0, id, this.#key);
    const isKnown = isId && this.#table.find(this.#key, keeper);
    if (isKnown && this.#replicas.locate(keeper)) {
      this.#count(ResponseEvent.found);
      const mayAsk = holder?.refs === undefined || this.#mayAsk(holder, models.names);
      return mayAsk ? 0 : errors.MODEL_NOT_ALLOWED.number;
    }
    keeper.adapter = -1;
    if (!isKnown && holder === undefined && this.#replicas.only(model, keeper)) return 0;
    this.#count(isKnown ? ResponseEvent.removed : ResponseEvent.unknown);
    scan.errorParam = param;
    scan.errorMessage = isKnown ? removed : unknown;
    return errors.RESPONSE_NOT_FOUND.number;
  }

  /** A name that a reload has taken away is nobody's to ask for. */
  #mayAsk(holder: Holder, names: ModelNames): boolean {
    const asked = names.named(this.#keeper.name);
    return asked !== undefined && mayUse(holder, asked.model, asked.adapter);
  }

  #pin(request: Request): void {
    request.pin = this.#keeper.row;
    request.pinEpoch = this.#keeper.epoch;
  }

  #count(event: ResponseEvent): void {
    this.#state.metrics.add(metrics.storedResponses, event, 1);
  }
}
