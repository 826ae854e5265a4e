/**
 * From a request head to a message in the request ring. Acceptor threads; never blocks.
 *
 * The body is copied once, from the socket's buffer into this acceptor's arena partition, behind the
 * header blob in one block that grows by doubling; it is scanned there and the replica gets these
 * bytes. Until the push succeeds slot and block are ours alone, so every refusal gives both back.
 */
import { type ErrorEntry, errorOf, errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { encodeHeadersInto } from '../protocol/header-codec.ts';
import { scanMultipartModel } from '../protocol/multipart.ts';
import { capProblem, noCaps } from '../protocol/request-caps.ts';
import { createRequestFacts } from '../protocol/request-facts.ts';
import { uuidv7, validRequestId } from '../protocol/request-id.ts';
import { scanRequest } from '../protocol/request-scanner.ts';
import { isAnthropicTarget, matchRoute, type Route, type RouteMatch } from '../protocol/routes.ts';
import { DrainStage, OverloadAction } from '../shm/control.layout.ts';
import { RequestKind } from '../shm/request-ring.layout.ts';
import { RequestFlag, SlotState } from '../shm/request-slots.layout.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Ring, Stage } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { errorAnswer } from './answers.ts';
import { budgetRefusal, budgetWaitMs } from './budget.ts';
import { announceClosing } from './closing.ts';
import { Columns } from './columns.ts';
import { ContextLimit } from './context-limit.ts';
import type { EdgeHead } from './edge-head.ts';
import { capsFor, type Holder, isHolder, needsKey } from './key-ring.ts';
import type { Exchange, ExchangePeer, ListenerHandler } from './listener.ts';
import { answerLocally, answerPreflight } from './local-routes.ts';
import { MediaPolicy } from './media-policy.ts';
import { isDegraded } from './overload.ts';
import type { OwnAnswers } from './own-answers.ts';
import { collectHeaders } from './replica-headers.ts';
import { Phase, Request, type RequestFacts, type RequestOwner } from './request.ts';
import { invalidHints } from './request-hints.ts';
import { findModel } from './served-model.ts';
import type { Settlement } from './settlement.ts';
import type { StoredResponseRequests } from './stored-responses.ts';
import type { TokenCounts } from './token-counts.ts';
import { unknownUrl } from './unknown-url.ts';

/** Room for a body of which nothing is here yet: what a head claims costs its sender nothing. */
const firstBodyBytes = 8 * 1024;
/** A body of known length gets its whole block once one part in so many has arrived. */
const earnedPart = 8;
const bodyAlign = 16;

export class Ingest implements ListenerHandler {
  readonly #state: AcceptorState;
  readonly #settlement: Settlement;
  readonly #owner: RequestOwner;
  readonly #match: RouteMatch = { route: undefined, allow: '', parameter: '' };
  readonly #scan = createRequestFacts();
  readonly #media: MediaPolicy;
  readonly #stored: StoredResponseRequests;
  readonly #columns: Columns;
  readonly #headers: string[] = [];
  readonly #context: ContextLimit;

  constructor(
    state: AcceptorState,
    settlement: Settlement,
    owner: RequestOwner,
    ownAnswers: OwnAnswers,
    stored: StoredResponseRequests,
    counts?: TokenCounts,
  ) {
    this.#state = state;
    this.#stored = stored;
    this.#context = new ContextLimit(state, counts, {
      publish: (request, readUs) => this.#publish(request, readUs),
      refuse: (request, param, message) =>
        this.#refuse(request, errors.CONTEXT_LENGTH, param, false, message),
      answer: (request, body) => ownAnswers.send(request, body),
    });
    this.#columns = new Columns(state);
    this.#media = new MediaPolicy(state);
    this.#settlement = settlement;
    this.#owner = owner;
  }

  failed(error: unknown): void {
    this.#state.failed(error);
  }

  takesConnection(): boolean {
    if (!isDegraded(this.#state, OverloadAction.refuseConnections)) return true;
    this.#state.metrics.add(metrics.connectionsRefused, 0, 1);
    return false;
  }

  reject(error: number, head: EdgeHead, exchange: Exchange): void {
    const route = matchRoute(head.method, head.target, this.#match);
    const asker = this.#factsOf(head, route, nowUs(), undefined);
    // Where the body of a broken head ends is not known: nothing behind it is read.
    this.#refuseHead(errorOf(error), head, exchange, asker, head.rules.errorParam, false);
  }

  open(head: EdgeHead, exchange: Exchange): ExchangePeer | undefined {
    faultPoint('handler');
    const arrivedUs = nowUs();
    announceClosing(this.#state, exchange);
    const route = matchRoute(head.method, head.target, this.#match);
    const found = needsKey(route) ? this.#holderOf(head) : undefined;
    const holder = found !== undefined && isHolder(found) ? found : undefined;
    const facts = this.#factsOf(head, route, arrivedUs, holder);
    if (route === undefined) {
      this.#refuseUnrouted(head, exchange, facts);
      return undefined;
    }
    if (found !== undefined && !isHolder(found)) {
      this.#refuseHead(found, head, exchange, facts, undefined);
      return undefined;
    }
    if (route.action !== 'proxy') {
      return answerLocally(this.#state, route, this.#match.parameter, facts, exchange);
    }
    const error = this.#refusalOf(head, facts);
    if (error !== undefined) {
      this.#refuseHead(error, head, exchange, facts, head.rules.errorParam);
      return undefined;
    }
    return this.#admit(head, exchange, facts);
  }

  get #drainStage(): number {
    const { words, draining } = this.#state.control;
    return Atomics.load(words, draining);
  }

  /** Whose key came with the head, or why it does not let in; undefined where none is asked for. */
  #holderOf({ rules }: EdgeHead): Holder | ErrorEntry | undefined {
    const { keyRing } = this.#state;
    if (!keyRing.isRequired) return undefined;
    return keyRing.find(rules.authorization, rules.apiKey, Date.now());
  }

  /** Why a routed head is refused before its body. */
  #refusalOf(head: EdgeHead, facts: RequestFacts): ErrorEntry | undefined {
    if (isDegraded(this.#state, OverloadAction.refuseRequests)) return errors.OVERLOADED;
    if (facts.contentLength > this.#state.start.maxBody) return errors.BODY_TOO_LARGE;
    const unpaid = budgetRefusal(this.#state, facts.holder);
    if (unpaid !== undefined) return unpaid;
    if (this.#state.uploads.isFull(facts)) return errors.CONCURRENCY_LIMIT;
    const invalid = invalidHints(head);
    if (invalid === '') return undefined;
    head.rules.errorParam = invalid;
    return errors.BAD_HEADER;
  }

  #refuseUnrouted(head: EdgeHead, exchange: Exchange, facts: RequestFacts): void {
    const { allow } = this.#match;
    if (head.method === 'OPTIONS') {
      answerPreflight(facts, exchange);
      return;
    }
    const entry = allow === '' ? errors.ROUTE_NOT_FOUND : errors.METHOD_NOT_ALLOWED;
    this.#refuseHead(entry, head, exchange, facts, undefined);
  }

  #refuseHead(
    entry: ErrorEntry,
    head: EdgeHead,
    exchange: Exchange,
    facts: RequestFacts,
    param: string | undefined,
    isBodyDue = facts.contentLength !== 0,
  ): void {
    const isSpent = entry === errors.BUDGET_SPENT;
    const waitMs = isSpent ? budgetWaitMs(this.#state, facts.holder) : 0;
    const isUnknown = entry === errors.ROUTE_NOT_FOUND;
    const message = isUnknown ? unknownUrl(head.method, head.target) : '';
    const { status, headers, body } = errorAnswer(entry, facts, waitMs, param, message);
    if (status === 401) headers.push('www-authenticate', 'Bearer');
    if (entry === errors.METHOD_NOT_ALLOWED) headers.push('allow', this.#match.allow);
    exchange.answerAndClose(status, headers, body, isBodyDue);
    this.#settlement.recordRefusal(entry, facts, status, head.method);
  }

  #factsOf(
    head: EdgeHead,
    route: Route | undefined,
    arrivedUs: number,
    holder: Holder | undefined,
  ): RequestFacts {
    const { requestId, contentType, contentLength, isChunked, sessionId, cascade } = head.rules;
    const { traceparent } = head.rules;
    const tracing = route?.action === 'proxy' ? this.#state.tracing : undefined;
    return {
      route,
      requestId: validRequestId(requestId) ? requestId : uuidv7(),
      isAnthropic: isAnthropicTarget(head.target),
      hasOrigin: head.hasOrigin,
      contentType,
      contentLength: isChunked ? -1 : Math.max(contentLength, 0),
      sessionId,
      responseId: route?.model === 'path' ? this.#match.parameter : '',
      cascade,
      trace: tracing?.begin(traceparent, arrivedUs),
      wantsExplain: head.rules.explain !== '',
      holder,
      models: this.#state.models,
      arrivedUs,
    };
  }

  #admit(head: EdgeHead, exchange: Exchange, facts: RequestFacts): Request | undefined {
    const { pool, slots, requests, uploads } = this.#state;
    const slot = pool.take();
    if (slot < 0) {
      this.#refuseHead(errors.SLOTS_FULL, head, exchange, facts, undefined);
      return undefined;
    }
    const request = new Request(exchange, facts, this.#owner);
    request.slot = slot;
    request.lease = slots.claim(slot);
    requests[slot - pool.first] = request;
    uploads.begin(request);
    let problem: ErrorEntry | undefined;
    try {
      // The claim comes before this look: a drain that found the slot free after its store is seen here.
      const isDraining = this.#drainStage === DrainStage.refusing;
      problem = isDraining ? errors.DRAINING : this.#writeHead(request, head);
    } catch (error) {
      this.#settlement.abandon(request); // the exchange has no peer yet that would do it
      throw error;
    }
    if (problem === undefined) return request;
    this.#settlement.abandon(request);
    this.#refuseHead(problem, head, exchange, facts, undefined);
    return undefined;
  }

  /** Takes the arena block, writes the header blob, and the columns known from the head. */
  #writeHead(request: Request, head: EdgeHead): ErrorEntry | undefined {
    const { arena, arenaData } = this.#state;
    const { facts } = request;
    const headers = this.#headers;
    collectHeaders(headers, head, facts, this.#state.tracing);
    let blobBytes = 2;
    for (const text of headers) blobBytes += 2 + text.length;
    const start = Math.ceil(blobBytes / bodyAlign) * bodyAlign;
    const claimed = facts.contentLength < 0 ? firstBodyBytes : facts.contentLength;
    const block = arena.allocate(start + Math.min(claimed, firstBodyBytes));
    if (block < 0) return errors.ARENA_FULL;
    request.block = block;
    request.bodyStart = start;
    faultPoint('admitted');
    const written = encodeHeadersInto(arenaData, block, headers);
    assert(written === blobBytes, 'the header blob has the size that was counted');
    this.#columns.writeHead(request, head, blobBytes);
    return undefined;
  }

  body(request: Request, bytes: Uint8Array, isLast: boolean): void {
    if (request.phase !== Phase.reading) return;
    const { contentLength } = request.facts;
    const length = request.bodyLength + bytes.length;
    const limit = contentLength < 0 ? this.#state.start.maxBody : contentLength;
    if (length > limit) {
      if (contentLength < 0) this.#refuse(request, errors.BODY_TOO_LARGE, '', !isLast);
      else this.#refuse(request, errors.BAD_FRAMING);
      return;
    }
    if (bytes.length > 0) {
      if (!this.#reserve(request, length)) {
        this.#refuse(request, errors.ARENA_FULL, '', !isLast);
        return;
      }
      this.#state.arenaData.set(bytes, request.block + request.bodyStart + request.bodyLength);
      request.bodyLength = length;
    }
    if (isLast) this.#complete(request);
  }

  /** Room for `length` body bytes, in a larger block when needed. */
  #reserve(request: Request, length: number): boolean {
    const { arena, arenaData } = this.#state;
    const need = request.bodyStart + length;
    const capacity = arena.capacityAt(request.block);
    if (need <= capacity) return true;
    const { contentLength } = request.facts;
    const isEarned = length * earnedPart >= contentLength && contentLength >= 0;
    const wanted = isEarned ? request.bodyStart + contentLength : Math.max(need, capacity * 2);
    if (arena.grow(request.block, wanted)) return true;
    const block = arena.allocate(wanted);
    if (block < 0) return false;
    const used = request.bodyStart + request.bodyLength;
    arenaData.copyWithin(block, request.block, request.block + used);
    arena.release(request.block);
    request.block = block;
    return true;
  }

  #complete(request: Request): void {
    const readUs = nowUs();
    this.#state.uploads.end(request);
    if (request.bodyLength < request.facts.contentLength) {
      this.#refuse(request, errors.BAD_FRAMING);
      return;
    }
    const error = this.#scanBody(request);
    if (error !== 0) {
      const { errorParam, errorMessage } = this.#scan;
      this.#refuse(request, errorOf(error), errorParam, false, errorMessage);
      return;
    }
    this.#columns.writeBody(request, this.#scan);
    if (!this.#context.takes(request, this.#scan, readUs)) this.#publish(request, readUs);
  }

  /** Finds the model and fills the scan record. 0 or an error number. */
  #scanBody(request: Request): number {
    const { arenaData, start } = this.#state;
    const { route, contentType, holder } = request.facts;
    const from = request.block + request.bodyStart;
    const body = arenaData.subarray(from, from + request.bodyLength);
    const facts = this.#scan;
    const source = route?.model;
    if (source === 'path') return this.#stored.pinById(request, facts);
    const error =
      source === 'multipart'
        ? scanMultipartModel(body, body.length, contentType, facts, this.#media.formUrls)
        : scanRequest(body, body.length, facts);
    if (error !== 0) return error;
    facts.errorParam = '';
    facts.errorMessage = '';
    if (facts.model === '') return errors.MODEL_REQUIRED.number;
    const permission = findModel(request, facts);
    if (permission !== 0) return permission;
    const shape = route?.shape ?? 'whole';
    // An earlier response may be kept by another model, whose caps it then is.
    const unpinned = shape === 'responses' ? this.#stored.pinNext(request, facts) : 0;
    if (unpinned !== 0) return unpinned;
    const { maxN } = capsFor(holder, request.model);
    const capped = capProblem(body, facts, start.caps ?? noCaps, maxN, shape);
    if (capped !== 0) return capped;
    const isRefused = this.#media.refuses(request, body, source === 'multipart');
    return isRefused ? errors.MEDIA_NOT_ALLOWED.number : 0;
  }

  #publish(request: Request, readUs: number): void {
    const { slots, requestRing, schedulerBell } = this.#state;
    const { slot, lease } = request;
    const publishedUs = nowUs();
    slots.writeTime(slot, slots.at.publishedUs, publishedUs);
    // Queued before it is published: whoever reads the message must find the slot in its hands.
    const queued = slots.transition(slot, lease, SlotState.reading, SlotState.queued);
    assert(queued, 'a request being read belongs to its acceptor');
    if (!requestRing.push(RequestKind.arrive, slot, lease)) {
      this.#state.metrics.add(metrics.ringFull, Ring.request, 1);
      // Nobody was told of the slot; only a scheduler that starts anew may have found it in the table.
      if (!slots.transition(slot, lease, SlotState.queued, SlotState.settled)) {
        this.#published(request, publishedUs);
        return;
      }
      request.phase = Phase.settled;
      this.#refuse(request, errors.RING_FULL);
      return;
    }
    this.#published(request, publishedUs);
    schedulerBell.ring(publishedUs);
    this.#state.metrics.observe(metrics.overhead, Stage.parse, publishedUs - readUs);
  }

  #published(request: Request, us: number): void {
    const { silent, slots, start } = this.#state;
    request.phase = Phase.published;
    if (start.keepAlive === 0) return;
    const flags = slots.words[slots.row(request.slot) + slots.at.flags] as number;
    if ((flags & RequestFlag.stream) !== 0) silent.add(request, us + start.keepAlive * 1000);
  }

  /** Refuses a request that holds a slot nobody else knows of. */
  #refuse(request: Request, entry: ErrorEntry, param = '', isBodyDue = false, message = ''): void {
    const { facts, exchange } = request;
    const { status, headers, body } = errorAnswer(entry, facts, 0, param, message);
    exchange.answerAndClose(status, headers, body, isBodyDue);
    this.#settlement.abandon(request);
    const method = facts.route?.method ?? '';
    this.#settlement.recordRefusal(entry, facts, status, method, request.model);
  }
}
