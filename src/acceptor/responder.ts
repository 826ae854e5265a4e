/**
 * From the response and reply rings to the clients. Acceptor threads; called by the doorbell.
 *
 * Each drain handles a bounded number of records, so that sockets are served in between. A record of
 * another generation is late and is dropped. Bytes the connection took become the stream's credit;
 * the forwarder is woken once per half window, whenever a slow client moves on, and after a ring
 * was drained far enough to matter to a forwarder that found it full. A record whose handling
 * throws is a defect: it is counted, its request is cut, and the drain goes on behind it.
 */

import { errorOf, errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { noBytes } from '../lib/no-bytes.ts';
import { tailAfter } from '../protocol/event-end.ts';
import { decodeHeaders } from '../protocol/header-codec.ts';
import { ByteRingConsumer } from '../shm/byte-ring.ts';
import { ring } from '../shm/doorbell.ts';
import { recordRingCapacity } from '../shm/memory.ts';
import { attemptOf, generationOf } from '../shm/request-slots.ts';
import {
  type ResponseHead,
  ResponseKind,
  readResponseHead,
  readUint32,
  responseHeadBytes,
} from '../shm/response-records.ts';
import { ReplyRingLayout } from '../shm/rings.layout.ts';
import { SpscConsumer } from '../shm/spsc-ring.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { SlowReader, Stage } from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { isEventStream, pushStreamHeaders, replicaAnswerHeaders } from './answers.ts';
import { announceClosing } from './closing.ts';
import type { Ending } from './ending.ts';
import { pushExplanation } from './explain-header.ts';
import { pushLimits } from './limit-headers.ts';
import { answerBytesMax, stalledMsMin } from './listener.ts';
import { servingModel } from './model-names.ts';
import { Phase, type Request } from './request.ts';
import type { Settlement } from './settlement.ts';

const recordsPerDrain = 256;
const bytesPerDrain = 1024 * 1024;
/** Bytes of a header list that only its forwarder can have got wrong. */
const headerBlobMax = 64 * 1024;
export class Responder {
  readonly #state: AcceptorState;
  readonly #settlement: Settlement;
  readonly #ending: Ending;
  readonly #rings: ByteRingConsumer[];
  readonly #replies: SpscConsumer<(typeof ReplyRingLayout)['spec']['cell']['fields']>;
  readonly #bellWanted: Uint8Array;
  readonly #head: ResponseHead = { status: 0, headerLength: 0, contentLength: 0, replica: 0 };
  readonly #decoded: string[] = [];
  readonly #keptBytesMax: number;
  readonly #tellBytes: number;

  constructor(state: AcceptorState, settlement: Settlement, ending: Ending) {
    const { memory, index, streamWindow } = state.start;
    const { size } = memory;
    this.#state = state;
    this.#settlement = settlement;
    this.#ending = ending;
    this.#rings = memory.responseRings.map(
      (ofForwarder) =>
        new ByteRingConsumer(ofForwarder[index] as SharedArrayBuffer, size.responseRingBytes),
    );
    this.#replies = new SpscConsumer(
      ReplyRingLayout,
      memory.replyRings[index] as SharedArrayBuffer,
      recordRingCapacity(size),
    );
    this.#bellWanted = new Uint8Array(size.forwarders);
    this.#keptBytesMax = streamWindow + size.responseRingBytes / 2;
    this.#tellBytes = streamWindow >>> 1;
  }

  /** Handles what is there, within a budget. True when anything is left. */
  drain(): boolean {
    this.#settlement.retryCancels();
    let left = this.#drainReplies();
    for (let forwarder = 0; forwarder < this.#rings.length; forwarder++) {
      if (this.#drainRing(forwarder)) left = true;
    }
    this.#ringBells();
    return left;
  }

  writable(request: Request): void {
    const { outbox } = request;
    const before = outbox.keptBytes;
    outbox.flush(request.isEnding);
    this.#giveCredit(request, before > 0 || request.toldBytes !== outbox.takenBytes);
    this.#ringBells();
    this.#ending.ifComplete(request);
  }

  /** The connection is gone before its answer was complete. */
  gone(request: Request): void {
    if (request.phase === Phase.over) return;
    request.isGone = true;
    this.#noteStalled(request);
    request.outbox.clear();
    if (request.phase === Phase.reading) {
      this.#settlement.recordGone(request);
      this.#settlement.abandon(request);
    } else if (request.phase === Phase.published) this.#settlement.cancel(request);
    else this.#settlement.finish(request);
    faultPoint('aborted');
  }

  /** The engine cut it (listener.ts), or it left after as long: either way it did not read. */
  #noteStalled(request: Request): void {
    if (request.cutFor !== undefined || request.outbox.stalledMs < stalledMsMin) return;
    request.cutFor = errors.CLIENT_STALLED;
    this.#state.metrics.add(metrics.slowReadersCut, SlowReader.stalled, 1);
  }

  #requestOf(slot: number, lease: number): Request | undefined {
    const { pool, requests, metrics: counters } = this.#state;
    const request = requests[slot - pool.first];
    if (
      request !== undefined &&
      request.phase === Phase.published &&
      generationOf(request.lease) === generationOf(lease)
    ) {
      return request;
    }
    counters.add(metrics.lateEvents, 0, 1);
    return undefined;
  }

  #drainReplies(): boolean {
    const replies = this.#replies;
    const { words, at } = replies;
    for (let count = 0; count < recordsPerDrain; count++) {
      const record = replies.peek();
      if (record < 0) return false;
      const lease = words[record + at.lease] as number;
      const request = this.#requestOf(words[record + at.slot] as number, lease);
      const error = words[record + at.error] as number;
      const retryAfterMs = words[record + at.retryAfterMs] as number;
      replies.advance();
      if (request === undefined) continue;
      try {
        faultPoint('record');
        if (attemptOf(lease) > 0) this.#passOnWritten(request);
        this.#settlement.settle(request);
        this.#ending.withError(request, errorOf(error), retryAfterMs);
      } catch (failure) {
        this.#abort(request, failure);
      }
    }
    return true;
  }

  /** What the forwarder wrote of a stream that was to be continued is in its ring, and goes first. */
  #passOnWritten({ slot }: Request): void {
    const { slots } = this.#state;
    if (!slots.isContinued(slot)) return;
    const forwarder = slots.words[slots.row(slot) + slots.at.forwarder] as number;
    const source = this.#rings[forwarder] as ByteRingConsumer;
    const before = source.position;
    for (const bytes = source.depth(); ((source.position - before) | 0) < bytes; ) {
      if (!this.#drainRing(forwarder)) return;
    }
  }

  #drainRing(forwarder: number): boolean {
    const source = this.#rings[forwarder] as ByteRingConsumer;
    let bytes = 0;
    for (let count = 0; count < recordsPerDrain && bytes < bytesPerDrain; count++) {
      if (!source.peek()) {
        if (bytes > source.capacity / 4) this.#bellWanted[forwarder] = 1;
        return false;
      }
      const request = this.#requestOf(source.slot, source.lease);
      if (request !== undefined) {
        try {
          faultPoint('record');
          this.#onRecord(request, source, forwarder);
        } catch (failure) {
          this.#abort(request, failure);
        }
      }
      bytes += source.length;
      source.advance();
    }
    this.#bellWanted[forwarder] = 1;
    return true;
  }

  #onRecord(request: Request, source: ByteRingConsumer, forwarder: number): void {
    const { data, payload, length } = source;
    switch (source.kind) {
      case ResponseKind.chunk:
      case ResponseKind.last:
        this.#onChunk(request, source);
        return;
      case ResponseKind.head:
        this.#begin(request, data, payload);
        return;
      case ResponseKind.whole:
        this.#settlement.settle(request);
        this.#onWhole(request, data, payload, length);
        return;
      default:
        assert(source.kind === ResponseKind.end, `record kind of forwarder ${forwarder}`);
        this.#settlement.settle(request);
        this.#onEnd(request, readUint32(data, payload), readUint32(data, payload + 4));
    }
  }

  #onChunk(request: Request, source: ByteRingConsumer): void {
    if (request.isGone) return; // its cancellation is under way
    const { data, payload, length, kind } = source;
    const { outbox } = request;
    if (request.isKeptAlive) {
      outbox.skip(length); // of an answer that is no stream
      this.#giveCredit(request, false);
      return;
    }
    if (request.isEventStream) {
      request.tail = tailAfter(request.tail, data, payload, payload + length);
    }
    outbox.send(data, payload, payload + length, kind === ResponseKind.last);
    assert(outbox.keptBytes <= this.#keptBytesMax, 'a forwarder keeps within its credit');
    this.#giveCredit(request, false);
  }

  /** Reads the head at `at` of the ring; returns the offset behind it. */
  #readHead(request: Request, data: Uint8Array, at: number): number {
    const head = this.#head;
    readResponseHead(data, at, head);
    assert(head.headerLength <= headerBlobMax, 'a header blob is bounded');
    const blob = at + responseHeadBytes;
    if (head.headerLength > 0) decodeHeaders(data, blob, this.#decoded);
    else this.#decoded.length = 0;
    request.status = head.status;
    return blob + head.headerLength;
  }

  #headersOf(request: Request): string[] {
    const { slots, replicaNames, models } = this.#state;
    const { slot, facts } = request;
    const name = replicaNames[this.#head.replica] ?? '';
    const tellsModel = facts.models.tellsModel || models.tellsModel;
    const model = tellsModel ? (servingModel(this.#state, slot) ?? '') : '';
    const headers = replicaAnswerHeaders(facts, this.#decoded, slots, slot, name, model);
    pushExplanation(this.#state, request, headers);
    pushLimits(this.#state, request, headers);
    return headers;
  }

  #begin(request: Request, data: Uint8Array, at: number): void {
    announceClosing(this.#state, request.exchange);
    this.#readHead(request, data, at);
    this.#state.silent.remove(request);
    const isStream = isEventStream(this.#decoded);
    if (!request.isKeptAlive) {
      request.isEventStream = isStream;
      const headers = this.#headersOf(request);
      if (isStream) pushStreamHeaders(headers);
      request.exchange.begin(request.status, headers);
    } else if (isStream && request.status < 300) request.isKeptAlive = false;
    this.#observeRelay(request.slot, this.#state.slots.at.firstTokenUs);
  }

  /** From the moment the forwarder had what it passes on (`field`) to the hand-over to the client. */
  #observeRelay(slot: number, field: number): void {
    const { slots, metrics: counters } = this.#state;
    const sinceUs = slots.readTime(slot, field);
    if (sinceUs > 0) counters.observe(metrics.overhead, Stage.relay, nowUs() - sinceUs);
  }

  #onWhole(request: Request, data: Uint8Array, at: number, length: number): void {
    announceClosing(this.#state, request.exchange);
    const start = this.#readHead(request, data, at);
    const end = at + length;
    assert(start <= end, 'a whole record holds its head');
    if (request.isKeptAlive) {
      this.#ending.withoutStream(request, data.subarray(start, end));
      return;
    }
    const headers = this.#headersOf(request);
    const { exchange } = request;
    this.#observeRelay(request.slot, this.#state.slots.at.endedUs);
    if (end - start <= answerBytesMax) {
      exchange.answer(request.status, headers, data.subarray(start, end));
      this.#settlement.finish(request);
      return;
    }
    exchange.begin(request.status, headers);
    request.outbox.send(data, start, end, true);
    request.isEnding = true;
    this.#ending.ifComplete(request);
  }

  #onEnd(request: Request, error: number, retryAfterMs: number): void {
    if (error !== 0) {
      this.#ending.withError(request, errorOf(error), retryAfterMs);
      return;
    }
    if (request.isKeptAlive) {
      this.#ending.withoutStream(request, noBytes);
      return;
    }
    request.isEnding = true;
    this.#ending.ifComplete(request);
  }

  #giveCredit(request: Request, mustTell: boolean): void {
    if (request.phase !== Phase.published) return;
    const { slots } = this.#state;
    const { words, at } = slots;
    const row = slots.row(request.slot);
    const taken = request.outbox.takenBytes;
    // The credit. Pairs with the load of the forwarder (forwarder/credit.ts).
    Atomics.store(words, row + at.consumedBytes, taken);
    if (!mustTell && ((taken - request.toldBytes) | 0) < this.#tellBytes) return;
    request.toldBytes = taken;
    this.#bellWanted[words[row + at.forwarder] as number] = 1;
  }

  #ringBells(): void {
    const { control } = this.#state;
    for (let forwarder = 0; forwarder < this.#bellWanted.length; forwarder++) {
      if (this.#bellWanted[forwarder] === 0) continue;
      this.#bellWanted[forwarder] = 0;
      ring(control.words, control.forwarderBells[forwarder] as number);
    }
  }

  /** A defect of ours while a record was handled: the request is cut, its slot follows the rules. */
  #abort(request: Request, failure: unknown): void {
    this.#state.failed(failure);
    request.failure = errors.INTERNAL;
    if (request.phase === Phase.settled) this.#settlement.finish(request);
    if (request.exchange.isOpen) request.exchange.cut();
  }
}
