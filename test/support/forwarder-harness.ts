/**
 * A forwarder thread on real shared memory; the test plays scheduler and acceptor through the rings.
 */
import { Worker } from 'node:worker_threads';
import { nowUs } from '../../src/lib/clock.ts';
import { decodeHeaders, encodeHeadersInto } from '../../src/protocol/header-codec.ts';
import { ArenaPartition, arenaBytes } from '../../src/shm/arena.ts';
import { ByteRingConsumer } from '../../src/shm/byte-ring.ts';
import { ControlLayout, ThreadId } from '../../src/shm/control.layout.ts';
import { ring } from '../../src/shm/doorbell.ts';
import {
  bellsOf,
  controlCounts,
  createMemory,
  type MemorySize,
  recordRingCapacity,
  type SharedMemory,
} from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsReader } from '../../src/shm/metrics.ts';
import { RequestFlag, SlotState } from '../../src/shm/request-slots.layout.ts';
import { generationOf, RequestSlots } from '../../src/shm/request-slots.ts';
import {
  type ResponseHead,
  ResponseKind,
  readResponseHead,
  readUint32,
  responseHeadBytes,
} from '../../src/shm/response-records.ts';
import {
  DispatchKind,
  DispatchRingLayout,
  EventKind,
  EventRingLayout,
} from '../../src/shm/rings.layout.ts';
import { SpscConsumer, SpscProducer } from '../../src/shm/spsc-ring.ts';
import type { ForwarderStart, FromThread, ToThread } from '../../src/shm/threads.ts';
import { defaultMetricDims } from '../../src/telemetry/labels.ts';
import { replicaAddress } from './replica-address.ts';

export interface HarnessOptions {
  readonly urls: readonly string[];
  readonly timeouts?: Partial<ForwarderStart['timeouts']>;
  readonly streamWindow?: number;
  readonly responseRingBytes?: number;
  readonly maxInFlight?: number;
  readonly apiKey?: string;
}

export interface SendOptions {
  readonly route?: number;
  readonly body?: string | Uint8Array;
  readonly headers?: readonly string[];
  readonly replica?: number;
  readonly epoch?: number;
  readonly choices?: number;
  readonly deadlineMs?: number;
  /** Whether the client asked for a stream; true when not given. */
  readonly stream?: boolean;
  /** The prompt value of `body`, for a batch. */
  readonly prompt?: string;
  /** The next request is of the same batch. */
  readonly more?: boolean;
  /** What the client connection has taken before, as the row says. */
  readonly consumedBytes?: number;
  /** False: bytes stay unconsumed until `take` is called. */
  readonly reads?: boolean;
}

export interface Released {
  readonly outcome: number;
  readonly error: number;
  readonly retryAfterMs: number;
  readonly state: number;
}

/** A request as the acceptor and the scheduler see it. */
export class HarnessRequest {
  readonly slot: number;
  readonly generation: number;
  readonly harness: ForwarderHarness;
  lease: number;
  readonly reads: boolean;
  head: ResponseHead | undefined;
  headers: string[] = [];
  body: Buffer[] = [];
  /** Sizes of the body records. */
  records: number[] = [];
  /** Set by `whole` and `end`. */
  end: { readonly error: number; readonly whole: boolean } | undefined;
  started = 0;
  released: Released[] = [];
  /** Every event, in words. */
  told: string[] = [];
  /** Prompt and completion tokens the scheduler was last told of. */
  reported: readonly number[] = [];
  unconsumed = 0;

  constructor(harness: ForwarderHarness, slot: number, lease: number, reads: boolean) {
    this.harness = harness;
    this.slot = slot;
    this.lease = lease;
    this.generation = generationOf(lease);
    this.reads = reads;
  }

  get text(): string {
    return Buffer.concat(this.body).toString();
  }

  get status(): number {
    return this.harness.column(this.slot, 'status');
  }

  /** Settled, and the scheduler has been told: nothing more will come. */
  ended(): Promise<this> {
    return this.harness.until(() => this.end !== undefined && this.released.length > 0, this);
  }

  /** Given back to the scheduler without an answer. */
  async givenBack(): Promise<Released> {
    await this.harness.until(() => this.released.length > 0, this);
    return this.released.at(-1) as Released;
  }

  /** The client takes `bytes` of what it has been sent. */
  take(bytes: number): void {
    this.harness.consume(this, bytes);
  }

  abort(): void {
    this.harness.abort(this);
  }
}

const arenaSize = 64 * 1024 * 1024;

export class ForwarderHarness {
  readonly memory: SharedMemory;
  readonly slots: RequestSlots;
  readonly worker: Worker;
  readonly messages: FromThread[] = [];
  readonly #arena: Uint8Array;
  readonly #partition = new ArenaPartition(0, arenaSize);
  readonly #dispatch;
  readonly #events;
  readonly #responses: ByteRingConsumer;
  readonly #control: Int32Array;
  readonly #at;
  readonly #reader: MetricsReader;
  readonly #live = new Map<number, HarnessRequest>();
  readonly #timer: NodeJS.Timeout;
  #free: number[];
  #failure: Error | undefined;
  /** While true the acceptor does not read its ring. */
  paused = false;

  private constructor(memory: SharedMemory, worker: Worker, metrics: SharedArrayBuffer) {
    const { size } = memory;
    const records = recordRingCapacity(size);
    this.memory = memory;
    this.worker = worker;
    this.slots = new RequestSlots(memory.slots, size.slots);
    this.#arena = arenaBytes(memory.arena, size.arenaBytes);
    this.#dispatch = new SpscProducer(DispatchRingLayout, memory.dispatchRings[0]!, records);
    this.#events = new SpscConsumer(EventRingLayout, memory.eventRings[0]!, records);
    this.#responses = new ByteRingConsumer(memory.responseRings[0]![0]!, size.responseRingBytes);
    this.#control = new Int32Array(memory.control);
    this.#at = ControlLayout.place(controlCounts(size)).at;
    this.#reader = new MetricsReader(defaultMetricDims, [metrics]);
    this.#free = Array.from({ length: size.slots }, (_, i) => i);
    this.#timer = setInterval(() => this.pump(), 1);
    worker.on('message', (message: FromThread) => this.messages.push(message));
    worker.on('error', (error) => {
      this.#failure = error as Error;
    });
  }

  static async start(options: HarnessOptions): Promise<ForwarderHarness> {
    const size: MemorySize = {
      acceptors: 1,
      forwarders: 1,
      slots: 256,
      arenaBytes: arenaSize,
      responseRingBytes: options.responseRingBytes ?? 1024 * 1024,
    };
    const memory = createMemory(size);
    const metrics = createMetricsRegion(defaultMetricDims);
    const start: ForwarderStart = {
      thread: 'forwarder',
      index: 0,
      memory,
      metrics,
      log: { level: 'silent', sample: 0, pretty: false },
      models: [{ name: 'm', aliases: [], policy: 'random', sessionAffinity: true }],
      streamWindow: options.streamWindow ?? 64 * 1024,
      timeouts: {
        ...{ connect: 1000, firstToken: 5000, answer: 5000, interToken: 5000, total: 30_000 },
        ...options.timeouts,
      },
      replicas: options.urls.map((url, row) => replicaAddress(row, 1, url, options)),
    };
    const entry = new URL('../../src/forwarder/main.ts', import.meta.url);
    const harness = new ForwarderHarness(memory, new Worker(entry, { workerData: start }), metrics);
    await harness.until(() => harness.messages.some(({ kind }) => kind === 'ready'));
    return harness;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.worker.terminate();
  }

  post(message: ToThread): void {
    this.worker.postMessage(message);
  }

  async until<T>(test: () => boolean, value?: T): Promise<T> {
    while (!test()) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return value as T;
  }

  column(slot: number, name: keyof RequestSlots['at']): number {
    return this.slots.words[this.slots.row(slot) + this.slots.at[name]]!;
  }

  snapshot() {
    return this.#reader.snapshot();
  }

  /** Slots that are not free again. */
  get inUse(): number {
    return this.memory.size.slots - this.#free.length;
  }

  send(options: SendOptions = {}): HarnessRequest {
    const { slots } = this;
    const { words, at } = slots;
    const slot = this.#free.shift()!;
    const lease = slots.claim(slot);
    const row = slots.row(slot);
    const body = Buffer.from(options.body ?? '{"model":"m","stream":true}');
    const bodyStart = this.#partition.allocate(Math.max(body.length, 1));
    const headStart = this.#partition.allocate(4096);
    this.#arena.set(body, bodyStart);
    const list = options.headers ?? ['content-type', 'application/json', 'x-request-id', 'r1'];
    const headLength = encodeHeadersInto(this.#arena, headStart, list);
    const columns: Partial<Record<keyof typeof at, number>> = {
      ...{ limitRow: -1, limitModelRow: -1 },
      ...{ acceptor: 0, model: 0, clientGone: 0, hedgeFlags: 0, hedges: 0 },
      ...{ consumedBytes: options.consumedBytes ?? 0, deadlineMs: options.deadlineMs ?? 0 },
      ...{ route: options.route ?? 1, choices: options.choices ?? 1 },
      flags: options.stream === false ? 0 : RequestFlag.stream,
      ...{ bodyStart, bodyLength: body.length, headStart, headLength },
      promptStart: options.prompt === undefined ? 0 : body.indexOf(options.prompt),
      promptBytes: Buffer.byteLength(options.prompt ?? ''),
    };
    for (const [name, value] of Object.entries(columns)) {
      words[row + at[name as keyof typeof at]] = value;
    }
    slots.writeTime(slot, at.arrivedUs, nowUs());
    slots.transition(slot, lease, SlotState.reading, SlotState.queued);
    const request = new HarnessRequest(this, slot, lease, options.reads ?? true);
    this.#live.set(slot, request);
    const more = options.more === true ? 1 : 0;
    this.dispatch(request, options.replica ?? 0, options.epoch ?? 1, more);
    return request;
  }

  /** The scheduler starts the next attempt. */
  dispatch(request: HarnessRequest, replica: number, epoch = 1, more = 0): void {
    request.lease = this.slots.startAttempt(request.slot, request.lease);
    this.push(DispatchKind.start, request.slot, request.lease, replica, epoch, more);
  }

  /** The scheduler starts a hedge of the attempt. */
  hedge(request: HarnessRequest, replica: number, epoch = 1): void {
    this.push(DispatchKind.hedge, request.slot, request.lease, replica, epoch);
  }

  abort(request: HarnessRequest): void {
    const { slots } = this;
    slots.words[slots.row(request.slot) + slots.at.clientGone] = 1;
    slots.writeTime(request.slot, slots.at.clientGoneUs, nowUs());
    this.push(DispatchKind.abort, request.slot, request.lease, 0, 0);
  }

  setStopping(): void {
    Atomics.store(this.#control, this.#at.stopping, 1);
    this.#ringForwarder();
  }

  consume(request: HarnessRequest, bytes: number): void {
    const { words, at } = this.slots;
    const index = this.slots.row(request.slot) + at.consumedBytes;
    request.unconsumed -= bytes;
    Atomics.store(words, index, (Atomics.load(words, index) + bytes) | 0);
    this.#ringForwarder();
  }

  /** One round of acceptor and scheduler. */
  pump(): void {
    if (!this.paused) this.readRecords(Number.POSITIVE_INFINITY);
    const { words, at } = this.#events;
    for (let cell = this.#events.peek(); cell >= 0; cell = this.#events.peek()) {
      const request = this.#live.get(words[cell + at.slot]!);
      const lease = words[cell + at.lease]!;
      if (request?.lease === lease) {
        const of = words[cell + at.hedge] === 1 ? 'hedge' : 'first';
        request.told.push(`${of} ${Object.keys(EventKind)[words[cell + at.kind]!]}`);
        if (words[cell + at.kind] === EventKind.started) request.started++;
        if (words[cell + at.kind] === EventKind.released) {
          request.reported = [words[cell + at.promptTokens]!, words[cell + at.completionTokens]!];
          request.released.push({
            outcome: words[cell + at.outcome]!,
            error: words[cell + at.error]!,
            retryAfterMs: words[cell + at.retryAfterMs]!,
            state: this.slots.state(request.slot),
          });
        }
      }
      this.#events.advance();
    }
  }

  /** Reads up to `limit` records of the response ring. */
  readRecords(limit: number): number {
    const responses = this.#responses;
    let count = 0;
    for (; count < limit && responses.peek(); count++) {
      this.#onRecord();
      responses.advance();
    }
    return count;
  }

  #onRecord(): void {
    const { kind, slot, lease, payload, length, data } = this.#responses;
    const request = this.#live.get(slot);
    if (request === undefined || request.generation !== generationOf(lease)) return;
    if (request.end !== undefined) throw new Error('a record after the settling one');
    let start = payload;
    if (kind === ResponseKind.head || kind === ResponseKind.whole) {
      if (request.head !== undefined) throw new Error('a second head');
      const head: ResponseHead = { status: 0, headerLength: 0, contentLength: 0, replica: 0 };
      readResponseHead(data, payload, head);
      request.head = head;
      request.headers = decodeHeaders(data, payload + responseHeadBytes);
      start += responseHeadBytes + head.headerLength;
    }
    if (kind === ResponseKind.end) {
      request.end = { error: readUint32(data, payload), whole: false };
      return;
    }
    const bytes = Buffer.from(data.subarray(start, payload + length));
    if (kind !== ResponseKind.head) request.body.push(bytes);
    if (kind === ResponseKind.whole) request.end = { error: 0, whole: true };
    if (kind !== ResponseKind.chunk && kind !== ResponseKind.last) return;
    request.records.push(bytes.length);
    request.unconsumed += bytes.length;
    if (request.reads) this.consume(request, bytes.length);
  }

  /** The acceptor gives the slot back, as after the settling record. */
  free(request: HarnessRequest): void {
    const { slots } = this;
    const lease = slots.lease(request.slot);
    if (!slots.transition(request.slot, lease, SlotState.settled, SlotState.free)) {
      throw new Error(`slot ${request.slot} is in state ${slots.state(request.slot)}`);
    }
    const { at } = slots;
    for (const name of ['bodyStart', 'headStart'] as const) {
      this.#partition.release(slots.words[slots.row(request.slot) + at[name]]!);
    }
    this.#live.delete(request.slot);
    this.#free.unshift(request.slot);
  }

  /** A dispatch record as it is, however late. */
  push(kind: number, slot: number, lease: number, replica: number, epoch: number, more = 0): void {
    const { words, at } = this.#dispatch;
    const cell = this.#dispatch.begin();
    words[cell + at.kind] = kind;
    words[cell + at.slot] = slot;
    words[cell + at.lease] = lease;
    words[cell + at.replica] = replica;
    words[cell + at.epoch] = epoch;
    words[cell + at.more] = more;
    this.#dispatch.commit();
    this.#ringForwarder();
  }

  #ringForwarder(): void {
    const { size } = this.memory;
    ring(this.#control, bellsOf(size)(ThreadId.forwarder(0, size)));
  }
}
