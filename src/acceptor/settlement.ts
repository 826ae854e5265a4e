/**
 * The end of every request, whichever way it comes: slot and arena block go back exactly once, and the
 * outcome is counted and logged. Acceptor threads; never blocks.
 *
 * A request known to nobody else is abandoned; a published one is freed only after the scheduler or
 * its forwarder has settled it and the client has taken or left the rest of the answer.
 */
import { type ErrorEntry, errorOf, errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { RequestKind } from '../shm/request-ring.layout.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Ring } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { billedOf } from './billed.ts';
import { countAllowed, countRefusal } from './refusal-metrics.ts';
import { Phase, type Request, type RequestFacts } from './request.ts';
import { countOutcome, countRequest } from './request-metrics.ts';
import type { StoredResponseRequests } from './stored-responses.ts';
import { endSpan, traceIdOf } from './tracing.ts';
import { writeUsage } from './usage.ts';

export class Settlement {
  readonly #state: AcceptorState;
  readonly #stored: StoredResponseRequests;
  /** Cancellations the full request ring did not take; a request is in it at most once. */
  readonly #unsent: Request[] = [];

  constructor(state: AcceptorState, stored: StoredResponseRequests) {
    this.#state = state;
    this.#stored = stored;
  }

  /** Gives back slot and block of a request that no other thread knows of. Records nothing. */
  abandon(request: Request): void {
    assert(request.phase !== Phase.published, 'a published request is settled by others');
    const state = request.phase === Phase.settled ? SlotState.settled : SlotState.reading;
    this.#giveBack(request, state);
  }

  /** The outcome is fixed: nobody reads the body any more. */
  settle(request: Request): void {
    assert(request.phase === Phase.published, 'a request is settled once');
    request.phase = Phase.settled;
    this.#state.silent.remove(request);
    this.#releaseBlock(request);
  }

  /** The client has taken or left everything: the slot is free again. */
  finish(request: Request): void {
    assert(request.phase === Phase.settled, 'a slot is freed after it was settled');
    try {
      if (isDeleted(request)) this.#stored.forget(request);
      this.#record(request);
    } finally {
      this.#giveBack(request, SlotState.settled);
    }
  }

  /** The client left while others work for it: they are told, now or at a later drain. */
  cancel(request: Request): void {
    const { silent, slots } = this.#state;
    silent.remove(request);
    const row = slots.row(request.slot);
    slots.writeTime(request.slot, slots.at.clientGoneUs, nowUs());
    Atomics.store(slots.words, row + slots.at.clientGone, 1);
    if (this.#unsent.length > 0 || !this.#sendCancel(request)) this.#unsent.push(request);
  }

  /** Sends what an earlier full ring left behind. */
  retryCancels(): void {
    let sent = 0;
    for (const request of this.#unsent) {
      if (request.phase === Phase.published && !this.#sendCancel(request)) break;
      sent++;
    }
    if (sent > 0) this.#unsent.splice(0, sent);
  }

  /** A request that was refused before it reached anybody. */
  recordRefusal(
    entry: ErrorEntry,
    facts: RequestFacts,
    status: number,
    method: string,
    model = -1,
  ): void {
    if (method === 'OPTIONS') return;
    const { code, flag } = entry;
    const ms = (nowUs() - facts.arrivedUs) / 1000;
    countRequest(this.#state, facts, model, status, ms, method);
    countRefusal(this.#state, facts.holder, model, entry);
    const answered = code === errors.CLIENT_GONE.code ? 0 : status;
    endSpan(this.#state, facts, undefined, answered, code, model);
    const { log } = this.#state;
    if (log.sampler.keeps(facts.requestId, status, false, ms)) {
      const { requestId, holder } = facts;
      log.access({
        req_id: requestId,
        trace_id: traceIdOf(facts),
        tenant: holder?.tenantName,
        key_id: holder?.keyId,
        status,
        e2e_ms: ms,
        failed: false,
        err: code,
        flag,
      });
    }
  }

  /** A request that the gateway has answered itself. */
  recordOwn({ facts, model }: Request, status: number): void {
    const ms = (nowUs() - facts.arrivedUs) / 1000;
    countRequest(this.#state, facts, model, status, ms);
    endSpan(this.#state, facts, undefined, status, undefined, model);
    const { log, start } = this.#state;
    const { requestId, holder } = facts;
    if (!log.sampler.keeps(requestId, status, false, ms, holder?.logSample)) return;
    log.access({
      ...{ req_id: requestId, trace_id: traceIdOf(facts) },
      ...{ tenant: holder?.tenantName, key_id: holder?.keyId },
      ...{ model: start.models[model]?.name, status, e2e_ms: ms, failed: false },
      sample: holder?.logSample,
    });
  }

  /** The client left before its request was complete. */
  recordGone(request: Request): void {
    const entry = errors.CLIENT_GONE;
    const method = request.facts.route?.method ?? '';
    this.recordRefusal(entry, request.facts, entry.status, method, request.model);
  }

  #sendCancel(request: Request): boolean {
    const { requestRing, schedulerBell, metrics: counters } = this.#state;
    if (!requestRing.push(RequestKind.cancel, request.slot, request.lease)) {
      counters.add(metrics.ringFull, Ring.request, 1);
      return false;
    }
    schedulerBell.ring();
    return true;
  }

  #releaseBlock(request: Request): void {
    if (request.block < 0) return;
    this.#state.arena.release(request.block);
    request.block = -1;
  }

  #giveBack(request: Request, from: SlotState): void {
    const { slots, pool, requests, uploads } = this.#state;
    const { slot } = request;
    assert(request.phase !== Phase.over, 'a slot is given back once');
    request.phase = Phase.over;
    this.#releaseBlock(request);
    uploads.end(request);
    requests[slot - pool.first] = undefined;
    // Attempts have moved the lease on; the generation is still ours.
    if (slots.transition(slot, slots.lease(slot), from, SlotState.free)) {
      pool.give(slot);
      return;
    }
    // A slot somebody else still holds must not be used again: it stays out of the pool.
    this.#state.metrics.add(metrics.settleConflicts, 0, 1);
    this.#state.log.error('a slot to be freed was not settled');
  }

  #record(request: Request): void {
    const { log, slots, start, replicaNames } = this.#state;
    const { facts } = request;
    const failure = this.#causeOf(request);
    const ms = (nowUs() - facts.arrivedUs) / 1000;
    const isOurs = request.cutFor !== undefined && request.cutFor.source !== 'client';
    const hasLeft = request.isGone && !isOurs;
    const status = hasLeft ? errors.CLIENT_GONE.status : request.status;
    countRequest(this.#state, facts, request.model, status, ms);
    countAllowed(this.#state, facts.holder, request.model, request.failure);
    if (request.failure !== undefined) {
      countRefusal(this.#state, facts.holder, request.model, request.failure);
    }
    const outcome = failure === undefined && status < 400 ? 'ok' : 'error';
    const billed = billedOf(this.#state, request);
    countOutcome(this.#state, request, billed, outcome === 'ok' && !hasLeft, status, ms);
    const ended = hasLeft ? 'client_gone' : outcome;
    writeUsage(this.#state, request, billed, ended, failure?.code, ms);
    endSpan(this.#state, facts, request, request.status, failure?.code, request.model);
    const { words, at } = slots;
    const row = slots.row(request.slot);
    // Of an answer of the model that it was estimated for; the row may still have its last request's.
    const isOfModel = slots.attempts(request.slot) > 0 && words[row + at.model] === request.model;
    if (request.textBytes > 0 && isOfModel) {
      const promptTokens = words[row + at.promptTokens] as number;
      this.#state.estimates[request.model]?.learn(request.textBytes, promptTokens, 0);
    }
    const sample = facts.holder?.logSample;
    if (!log.sampler.keeps(facts.requestId, status, failure !== undefined, ms, sample)) return;
    const attempts = slots.attempts(request.slot);
    const firstTokenUs = slots.readTime(request.slot, at.firstTokenUs);
    log.access({
      req_id: facts.requestId,
      trace_id: traceIdOf(facts),
      tenant: facts.holder?.tenantName,
      key_id: facts.holder?.keyId,
      model: start.models[words[row + at.model] as number]?.name,
      replica: attempts > 0 ? replicaNames[slots.servingReplica(request.slot)] : undefined,
      status,
      attempts,
      ttft_ms: firstTokenUs > facts.arrivedUs ? (firstTokenUs - facts.arrivedUs) / 1000 : undefined,
      e2e_ms: ms,
      in_tok: attempts > 0 ? known(words[row + at.promptTokens]) : undefined,
      out_tok: attempts > 0 ? known(words[row + at.completionTokens]) : undefined,
      err: failure?.code,
      flag: failure?.flag,
      failed: failure !== undefined,
      sample,
    });
  }

  /** What an operator wants to know: of several failed attempts, how the last one failed. */
  #causeOf({ cutFor, failure, isGone, slot }: Request): ErrorEntry | undefined {
    if (cutFor !== undefined) return cutFor;
    if (isGone) return errors.CLIENT_GONE;
    if (failure !== errors.ALL_ATTEMPTS_FAILED) return failure;
    const { slots } = this.#state;
    return errorOf(slots.words[slots.row(slot) + slots.at.error] as number);
  }
}

/** The replica has deleted the response that the request was about. */
const isDeleted = ({ facts, status, failure }: Request): boolean => {
  const isAsked = facts.route?.method === 'DELETE' && facts.responseId !== '';
  return isAsked && failure === undefined && status >= 200 && status < 300;
};

const known = (tokens: number | undefined): number | undefined =>
  tokens === undefined || tokens < 0 ? undefined : tokens;
