/**
 * A real acceptor thread on real shared memory; the test is its scheduler and its forwarder.
 *
 * Messages of the request ring arrive by the scheduler's doorbell, credit by the forwarder's, so what
 * is tested is what runs: no clock is waited for where a message can be.
 */
import { Worker } from 'node:worker_threads';
import { resolveEngine } from '../../src/acceptor/uws-binary.ts';
import { nowUs } from '../../src/lib/clock.ts';
import type { FaultStage } from '../../src/lib/fault-point.ts';
import { decodeHeaders } from '../../src/protocol/header-codec.ts';
import { arenaBytes } from '../../src/shm/arena.ts';
import { ControlLayout, ThreadId } from '../../src/shm/control.layout.ts';
import { EventLoopBell, ring } from '../../src/shm/doorbell.ts';
import {
  controlCounts,
  createMemory,
  recordRingCapacity,
  replicaCounts,
  requestRingSize,
  type SharedMemory,
} from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsReader } from '../../src/shm/metrics.ts';
import { ReplicaAdmin, ReplicaTableLayout } from '../../src/shm/replica-table.layout.ts';
import { RequestKind } from '../../src/shm/request-ring.layout.ts';
import { RequestRingConsumer, RequestRingProducer } from '../../src/shm/request-ring.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { generationOf } from '../../src/shm/request-slots.ts';
import { ReplyRingLayout } from '../../src/shm/rings.layout.ts';
import { SpscProducer } from '../../src/shm/spsc-ring.ts';
import type { AcceptorStart, FromThread, TlsFiles } from '../../src/shm/threads.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { defaultMetricDims } from '../../src/telemetry/labels.ts';
import { type Arrival, ForwarderEnd } from './acceptor-forwarder.ts';
import { noKeys } from './no-keys.ts';
import { replicaAddress } from './replica-address.ts';

export type { Arrival } from './acceptor-forwarder.ts';

export type Engine = 'uws' | 'node';

export interface HarnessOptions {
  readonly engine: Engine;
  readonly slots?: number;
  readonly arenaBytes?: number;
  readonly maxBody?: number;
  readonly maxConnections?: number;
  readonly streamWindow?: number;
  readonly keepAlive?: number;
  readonly responseRingBytes?: number;
  readonly models?: AcceptorStart['models'];
  readonly tls?: TlsFiles;
  readonly host?: string;
  readonly faultHooks?: boolean;
  readonly execArgv?: readonly string[];
}

const testModel = {
  name: 'm',
  aliases: ['alias-of-m'],
  policy: 'random',
  sessionAffinity: true,
  adapters: ['sql', 'legal'],
} as const;
export class AcceptorHarness extends ForwarderEnd {
  readonly worker: Worker;
  readonly port: number;
  /** Every arrival ever seen, and every cancel. */
  readonly arrivals: Arrival[] = [];
  readonly cancels: Arrival[] = [];
  /** Called for each arrival instead of keeping it for `arrival()`. */
  onArrival: ((arrival: Arrival) => void) | undefined;
  /** Stops taking messages from the request ring, as a stalled scheduler would. */
  schedulerStalled = false;
  readonly #requestRing: RequestRingConsumer;
  readonly #replies: SpscProducer<(typeof ReplyRingLayout)['spec']['cell']['fields']>;
  readonly #control: Int32Array;
  readonly #floats: Float64Array;
  readonly #thread: ReturnType<typeof ControlLayout.place>['at']['thread'];
  readonly #draining: number;
  readonly #bells: EventLoopBell[];
  readonly #reader: MetricsReader;
  readonly #beat: NodeJS.Timeout;
  #unread: Arrival[] = [];
  #waiters: (() => void)[] = [];
  #messages: FromThread[] = [];
  schedulerBeats = true;

  private constructor(
    memory: SharedMemory,
    region: SharedArrayBuffer,
    worker: Worker,
    streamWindow: number,
  ) {
    super(memory, streamWindow);
    const { size } = memory;
    this.worker = worker;
    this.port = 0;
    this.#requestRing = new RequestRingConsumer(memory.requestRing, requestRingSize(size));
    const records = recordRingCapacity(size);
    this.#replies = new SpscProducer(ReplyRingLayout, memory.replyRings[0]!, records);
    const { at } = ControlLayout.attach(memory.control, controlCounts(size));
    this.#control = new Int32Array(memory.control);
    this.#floats = new Float64Array(memory.control);
    this.#thread = at.thread;
    this.#draining = at.draining;
    this.#reader = new MetricsReader(defaultMetricDims, [region]);
    const scheduler = this.#row(ThreadId.scheduler);
    const forwarder = this.#row(ThreadId.forwarder(0, size));
    this.#bells = [
      new EventLoopBell(this.#control, scheduler, () => this.#drain()),
      new EventLoopBell(this.#control, forwarder, () => this.wakeCredit()),
    ];
    for (const bell of this.#bells) bell.start();
    this.#beat = setInterval(() => this.#beatScheduler(), 50);
    this.#beatScheduler();
    worker.on('message', (message: FromThread) => {
      this.#messages.push(message);
      this.#wake();
    });
  }

  static async start(options: HarnessOptions): Promise<AcceptorHarness> {
    const memory = createMemory({
      acceptors: 1,
      forwarders: 1,
      slots: options.slots ?? 64,
      arenaBytes: options.arenaBytes ?? 64 * 1024 * 1024,
      responseRingBytes: options.responseRingBytes ?? 1024 * 1024,
    });
    const region = createMetricsRegion(defaultMetricDims);
    const streamWindow = options.streamWindow ?? 64 * 1024;
    const start: AcceptorStart = {
      thread: 'acceptor',
      index: 0,
      memory,
      metrics: region,
      log: { level: 'silent', sample: 0, pretty: false },
      models: options.models ?? [testModel],
      engine: options.engine,
      host: options.host ?? '127.0.0.1',
      port: 0,
      tls: options.tls ?? null,
      maxBody: options.maxBody ?? 16 * 1024 * 1024,
      maxConnections: options.maxConnections ?? 10_000,
      streamWindow,
      usage: null,
      keys: noKeys,
      keepAlive: options.keepAlive ?? 0,
      replicas: [{ ...replicaAddress(0, 1, 'http://127.0.0.1:1', { maxInFlight: 1 }), name: 'r1' }],
    };
    resolveEngine(options.engine);
    const entry = new URL('./acceptor-worker.ts', import.meta.url);
    const worker = new Worker(entry, {
      workerData: start,
      env: { ...process.env, ...(options.faultHooks === true ? { SLUICE_FAULT_HOOKS: '1' } : {}) },
      execArgv: [...(options.execArgv ?? [])],
    });
    const harness = new AcceptorHarness(memory, region, worker, streamWindow);
    const failed = new Promise<never>((_, reject) => {
      worker.once('error', reject);
    });
    const ready = await Promise.race([harness.message('ready'), failed]).catch((error: unknown) => {
      harness.#release();
      throw error;
    });
    (harness as { port: number }).port = (ready as { port: number }).port;
    return harness;
  }

  /** The first message of that kind, sent or yet to come. */
  async message(kind: FromThread['kind']): Promise<FromThread> {
    await this.#when(() => this.#messages.some((message) => message.kind === kind));
    return this.#messages.find((message) => message.kind === kind)!;
  }

  /** The oldest arrival nobody has taken yet. */
  async arrival(): Promise<Arrival> {
    await this.#when(() => this.#unread.length > 0);
    return this.#unread.shift()!;
  }

  async cancelled(count = 1): Promise<void> {
    await this.#when(() => this.cancels.length >= count);
  }

  /** Bytes of the request body in the arena. */
  body({ slot }: Arrival): Buffer {
    return Buffer.from(
      this.#arena(this.column(slot, 'bodyStart'), this.column(slot, 'bodyLength')),
    );
  }

  headerBlob({ slot }: Arrival): string[] {
    const start = this.column(slot, 'headStart');
    return decodeHeaders(Buffer.from(this.#arena(start, this.column(slot, 'headLength'))));
  }

  /** As the scheduler does: settles a queued request with an error. */
  refuse({ slot, lease }: Arrival, error: number, retryAfterMs = 0): void {
    if (!this.slots.transition(slot, lease, SlotState.queued, SlotState.settled)) {
      throw new Error('the slot was not queued');
    }
    this.reply(slot, lease, error, retryAfterMs);
  }

  reply(slot: number, lease: number, error: number, retryAfterMs = 0): void {
    const { words, at } = this.#replies;
    const record = this.#replies.begin();
    if (record < 0) throw new Error('the reply ring is full');
    words[record + at.slot] = slot;
    words[record + at.lease] = lease;
    words[record + at.error] = error;
    words[record + at.retryAfterMs] = retryAfterMs;
    this.#replies.commit();
    this.ringAcceptor();
  }

  ringAcceptor(): void {
    ring(this.#control, this.#row(ThreadId.acceptor(0)));
  }

  /** A producer of our own on the request ring, to fill it. */
  fillRequestRing(): number {
    const producer = new RequestRingProducer(
      this.memory.requestRing,
      requestRingSize(this.memory.size),
      0,
    );
    let pushed = 0;
    while (producer.push(RequestKind.tombstone, 0, 0)) pushed++;
    return pushed;
  }

  replicaIsUp(isUp: boolean): void {
    const region = this.memory.replicas;
    const { at } = ReplicaTableLayout.attach(region, replicaCounts);
    const words = new Int32Array(region);
    words[at.replica.base + at.replica.at.admin] = ReplicaAdmin.active;
    words[at.replica.base + at.replica.at.healthy] = isUp ? 1 : 0;
    new Float64Array(region)[(at.replica.base + at.replica.at.weight) / 2] = 1;
    Atomics.store(words, at.count, 1);
  }

  setDraining(stage: number): void {
    Atomics.store(this.#control, this.#draining, stage);
  }

  get slotsInUse(): number {
    let count = 0;
    for (let slot = 0; slot < this.slots.count; slot++) {
      if (this.slots.state(slot) !== SlotState.free) count++;
    }
    return count;
  }

  get arenaInUse(): number {
    return this.#floats[(this.#row(ThreadId.acceptor(0)) + this.#thread.at.arenaBytes) / 2]!;
  }

  get connections(): number {
    return this.#control[this.#row(ThreadId.acceptor(0)) + this.#thread.at.connections]!;
  }

  /** Worst loop lag of the last second, by the acceptor's own account. */
  get lagMs(): number {
    return this.#floats[(this.#row(ThreadId.acceptor(0)) + this.#thread.at.lagUs) / 2]! / 1000;
  }

  get beats(): number {
    return Atomics.load(this.#control, this.#row(ThreadId.acceptor(0)) + this.#thread.at.beats);
  }

  counter(name: 'handlerErrors' | 'lateEvents' | 'settleConflicts' | 'streamTruncated'): number {
    return this.#reader.snapshot().counter(metrics[name], 0);
  }

  /** Resolves once two more heartbeats were written, so that their figures are fresh. */
  async beat(): Promise<void> {
    const from = this.beats;
    await this.until(() => this.beats >= from + 2, 'two heartbeats');
  }

  /** Slots, arena and connections are back to nothing. */
  async quiet(): Promise<void> {
    await this.until(
      () => this.slotsInUse === 0 && this.arenaInUse === 0,
      'slots and arena at zero',
    );
  }

  async until(condition: () => boolean, what: string, limitMs = 20_000): Promise<void> {
    const limit = performance.now() + limitMs;
    while (!condition()) {
      if (performance.now() > limit) throw new Error(`never happened: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  fault(stage: FaultStage, count = 1): void {
    this.worker.postMessage({ kind: 'fail-at', stage, count });
  }

  loseNotify(every: number): void {
    this.worker.postMessage({ kind: 'lose-notify', every });
  }

  #release(): void {
    clearInterval(this.#beat);
    for (const bell of this.#bells) bell.stop();
  }

  async stop(): Promise<number> {
    const exited = new Promise<number>((resolve) => {
      this.worker.once('exit', resolve);
    });
    this.worker.postMessage({ kind: 'stop' });
    const code = await exited;
    this.#release();
    return code;
  }

  /** Whether a message written under `lease` is about the request of `arrival`. */
  static isSame(arrival: Arrival, other: Arrival): boolean {
    return arrival.slot === other.slot && generationOf(arrival.lease) === generationOf(other.lease);
  }

  #arena(start: number, length: number): Uint8Array {
    const all = arenaBytes(this.memory.arena, this.memory.size.arenaBytes);
    return all.subarray(start, start + length);
  }

  #row(thread: number): number {
    return this.#thread.base + thread * this.#thread.stride;
  }

  #beatScheduler(): void {
    if (!this.schedulerBeats) return;
    this.#floats[(this.#row(ThreadId.scheduler) + this.#thread.at.beatUs) / 2] = nowUs();
  }

  #drain(): boolean {
    if (this.schedulerStalled) return false;
    const source = this.#requestRing;
    while (source.peek()) {
      const arrival = { slot: source.slot, lease: source.lease };
      const isCancel = source.kind === RequestKind.cancel;
      source.advance();
      if (isCancel) this.cancels.push(arrival);
      else if (this.onArrival !== undefined) this.onArrival(arrival);
      else {
        this.arrivals.push(arrival);
        this.#unread.push(arrival);
      }
    }
    this.#wake();
    return false;
  }

  async #when(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      });
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}
