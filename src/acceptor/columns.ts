/**
 * The columns of a slot row that its acceptor fills: from the head, then from the scan of the body. Acceptor
 * threads; before the slot is published nobody else reads them.
 */
import { adapterSalt } from '../lib/adapter-salt.ts';
import { assert } from '../lib/assert.ts';
import { mix32 } from '../lib/mix32.ts';
import { batchKey, isBatchable } from '../protocol/batch-key.ts';
import type { RequestFacts as ScanFacts } from '../protocol/request-facts.ts';
import { hashSession, laneOfTenant } from '../protocol/request-keys.ts';
import { type AnswerShape, asksForStream } from '../protocol/routes.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { EdgeHead } from './edge-head.ts';
import type { Request, RequestFacts } from './request.ts';
import { deadlineOf, hedgeOf, priorityOf, tenantOf } from './request-hints.ts';
import { nobodys } from './stored-responses.ts';

/** Answers of other routes have no output tokens. */
const generatingShapes: ReadonlySet<AnswerShape> = new Set([
  'openai-chat',
  'openai-completions',
  'anthropic',
  'responses',
]);

const int32Max = 2 ** 31 - 1;

/** The key of the request's session: of its head, else of its body; '' for none. */
export const sessionOf = ({ sessionId }: RequestFacts, { sessionKey }: ScanFacts): string =>
  sessionId === '' ? sessionKey : sessionId;

export class Columns {
  readonly #state: AcceptorState;
  readonly #batchKey = new Int32Array(2);

  constructor(state: AcceptorState) {
    this.#state = state;
  }

  /** `blobBytes`: of the header blob. */
  writeHead(request: Request, head: EdgeHead, blobBytes: number): void {
    const { slots } = this.#state;
    const { at, words } = slots;
    const { holder, responseId } = request.facts;
    const row = slots.row(request.slot);
    request.asksForStream = responseId !== '' && asksForStream(head.target);
    words[row + at.headLength] = blobBytes;
    words[row + at.priority] = priorityOf(head, holder);
    words[row + at.tenant] = holder === undefined ? tenantOf(head) : laneOfTenant(holder.tenant);
    words[row + at.deadlineMs] = deadlineOf(head);
    words[row + at.hedgeMs] = hedgeOf(head);
  }

  writeBody(request: Request, scan: ScanFacts): void {
    const { slots, start, pool } = this.#state;
    const { words, at } = slots;
    const { facts } = request;
    const hasScan = facts.route?.model !== 'path';
    assert(request.slot >= pool.first, 'a request has a slot');
    const row = slots.row(request.slot);
    const wantsStream = hasScan ? scan.stream : request.asksForStream;
    const isStream = wantsStream && facts.route?.streams === true;
    const unstored = hasScan && scan.isUnstored ? RequestFlag.unstored : 0;
    const usage = hasScan && scan.includeUsage ? RequestFlag.includeUsage : 0;
    const tls = start.tls === null ? 0 : RequestFlag.tls;
    words[row + at.clientGone] = 0;
    words[row + at.acceptor] = start.index;
    words[row + at.model] = request.model;
    words[row + at.askedModel] = request.model;
    words[row + at.onwardModel] = request.model;
    words[row + at.adapter] = request.adapter;
    const { holder } = facts;
    words[row + at.limitRow] = holder?.limitRow ?? -1;
    words[row + at.limitModelRow] = holder?.modelRows.get(request.model) ?? -1;
    words[row + at.goOn] = 0;
    words[row + at.askedName] = request.askedName;
    words[row + at.pin] = request.pin + 1;
    words[row + at.pinEpoch] = request.pinEpoch;
    if (facts.route?.shape === 'responses') words.set(holder?.owner ?? nobodys, row + at.owner);
    words[row + at.route] = facts.route?.id ?? 0;
    const generates = generatingShapes.has(facts.route?.shape ?? 'whole')
      ? RequestFlag.generates
      : 0;
    const readsMore = hasScan && scan.readsMore ? RequestFlag.readsMore : 0;
    const isLater = hasScan && scan.isBackground && facts.route?.shape === 'responses';
    const background = isLater ? RequestFlag.background : 0;
    const renamed = request.isRenamed ? RequestFlag.renamed : 0;
    const judged = request.isJudged && generates !== 0 ? RequestFlag.judged : 0;
    const ofAnswer = (isStream ? RequestFlag.stream : 0) | usage | generates | unstored | judged;
    words[row + at.flags] = ofAnswer | tls | renamed | readsMore | background;
    words[row + at.nameStart] = hasScan ? scan.modelStart : 0;
    words[row + at.nameBytes] = hasScan ? scan.modelBytes : 0;
    words[row + at.headStart] = request.block;
    words[row + at.bodyStart] = request.block + request.bodyStart;
    words[row + at.bodyLength] = request.bodyLength;
    words[row + at.maxTokens] = hasScan ? scan.maxTokens : 0;
    words[row + at.choices] = hasScan ? Math.min(Math.max(scan.n, 1) * scan.prompts, int32Max) : 1;
    words[row + at.promptStart] = hasScan ? scan.promptStart : 0;
    words[row + at.promptBytes] = hasScan ? scan.promptBytes : 0;
    words[row + at.textBytes] = hasScan && facts.route?.isRead === true ? scan.textBytes : 0;
    const prefixCount = hasScan ? scan.prefixCount : 0;
    words[row + at.prefixCount] = prefixCount;
    const salt = adapterSalt(request.adapter);
    for (let i = 0; i < 2 * prefixCount; i++) {
      words[row + at.prefixHash + i] = (scan.prefixHashes[i] as number) ^ salt;
    }
    const session = hasScan ? sessionOf(facts, scan) : facts.sessionId;
    hashSession(session, words, row + at.sessionHash);
    const hasHead = hasScan && (scan.headHash[0] !== 0 || scan.headHash[1] !== 0);
    words[row + at.headHash] = hasHead ? (scan.headHash[0] as number) ^ salt : 0;
    words[row + at.headHash + 1] = hasHead ? (scan.headHash[1] as number) ^ salt : 0;
    hashSession(facts.requestId, words, row + at.idHash);
    this.#writeBatchKey(request, scan, row);
    slots.writeTime(request.slot, at.clientGoneUs, 0);
    slots.writeTime(request.slot, at.arrivedUs, facts.arrivedUs);
    Atomics.store(words, row + at.consumedBytes, 0);
  }

  /**
   * Only where some replica takes batches and replies are not judged. Requests of two sessions, adapters or tenants are in no batch together:
   * what it used is apportioned, and no tenant pays for another.
   */
  #writeBatchKey(request: Request, scan: ScanFacts, row: number): void {
    const { arenaData, batches, slots } = this.#state;
    const { words, at } = slots;
    const key = this.#batchKey.fill(0);
    const isCompletion = request.facts.route?.shape === 'openai-completions';
    if (batches && isCompletion && !request.isJudged && isBatchable(scan)) {
      const start = request.block + request.bodyStart;
      const body = arenaData.subarray(start, start + request.bodyLength);
      batchKey(body, body.length, scan, key);
      // A name may stand for several: those of one batch get the same one.
      const own = (words[row + at.sessionHash] as number) ^ adapterSalt(request.adapter);
      const { holder } = request.facts;
      key[0] = (key[0] as number) ^ own ^ (holder === undefined ? 0 : mix32(holder.tenant + 1));
    }
    words.set(key, row + at.batchKey);
  }
}
