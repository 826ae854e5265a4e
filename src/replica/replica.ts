/**
 * A simulated replica: an OpenAI-compatible server whose every byte can be predicted, with faults.
 *
 *   const replica = await startReplica({ profile: 'tokens:ttft=200ms,itl=20ms' });
 *
 * One event loop, two listeners: the replica's port and its control port. Never blocks.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { nowMs } from '../lib/clock.ts';
import { createPrng } from '../lib/prng.ts';
import { Connection, type ConnectionOwner } from './connection.ts';
import { type FaultRule, FaultRules } from './fault-rules.ts';
import { HoldGate } from './gate.ts';
import type { ParsedRequest, ParseFailure } from './http-parser.ts';
import type { LoraOptions } from './lora-shelf.ts';
import { maxNumSeqsProblem, type Profile, parseProfile } from './profile.ts';
import { RunningSlots } from './running-slots.ts';
import { ReplicaService } from './service.ts';
import { type AttemptRecord, ReplicaStats, type StatsSnapshot } from './stats.ts';

export interface ReplicaOptions {
  readonly host?: string;
  /** 0 takes a free port. */
  readonly port?: number;
  readonly controlPort?: number;
  /** See profile.ts. */
  readonly profile?: string;
  readonly model?: string;
  /** Answers 404 for any other model. */
  readonly strictModel?: boolean;
  /** Addressed by `[[fault@NAME:…]]`; the port without one. */
  readonly name?: string;
  /** Seed of the delays; the port without one. */
  readonly seed?: number;
  /** Generations that run at a time; the rest wait. */
  readonly maxNumSeqs?: number;
  readonly keepAliveTimeoutMs?: number;
  readonly apiKey?: string;
  /** Holds every request until the gate is released. */
  readonly hold?: boolean;
  readonly faults?: readonly FaultRule[];
  /** What it loads at run time; nothing without it. */
  readonly lora?: LoraOptions;
  /** Keeps head and body checksum of requests in the ledger. */
  readonly recordRequests?: boolean;
  readonly bodyBytesMax?: number;
  readonly idsMax?: number;
  /** What the fault kill-after does; without it the replica resets everything and closes. */
  readonly onKill?: () => void;
}

export interface Replica {
  readonly port: number;
  readonly controlPort: number;
  readonly url: string;
  readonly controlUrl: string;
  readonly gate: HoldGate;
  stats(): StatsSnapshot;
  /** Resolves once the statistics are as wanted: a gate on what the replica saw. */
  until(wanted: (stats: StatsSnapshot) => boolean): Promise<void>;
  /** Attempts of an x-request-id or nonce. */
  ledger(idOrNonce?: string): AttemptRecord[];
  countOf(id: string): number;
  /** Replaces the fault rules; throws on one that cannot be read. */
  setFaults(rules: readonly FaultRule[]): void;
  /** Opens or closes the port. Closing ends idle connections; streams go on. */
  listen(open: boolean): Promise<void>;
  /** Takes no more connections, finishes what is in flight, then closes. */
  drain(timeoutMs: number): Promise<void>;
  /** Resets every connection and closes: the replica's death, seen from outside. */
  crash(): Promise<void>;
  close(): Promise<void>;
}

const KEEP_ALIVE_TIMEOUT_MS = 5000; // uvicorn's, and so vLLM's
const MAX_NUM_SEQS = 1024;
const BODY_BYTES_MAX = 64 * 1024 * 1024;
const IDS_MAX = 262_144;
const LINGER_MS = 1000;

export async function startReplica(options: ReplicaOptions = {}): Promise<Replica> {
  const profile = parseProfile(options.profile ?? 'instant');
  if (typeof profile === 'string') throw new RangeError(profile);
  const problem = maxNumSeqsProblem(profile, options.maxNumSeqs ?? MAX_NUM_SEQS);
  if (problem !== undefined) throw new RangeError(problem);
  const replica = new RunningReplica(options, profile);
  await replica.open();
  return replica;
}

class RunningReplica implements Replica, ConnectionOwner {
  port = 0;
  controlPort = 0;
  draining = false;
  readonly bodyBytesMax: number;
  readonly gate: HoldGate;
  readonly #options: ReplicaOptions;
  readonly #profile: Profile;
  readonly #host: string;
  readonly #stats: ReplicaStats;
  readonly #slots: RunningSlots;
  readonly #rules = new FaultRules();
  readonly #connections = new Set<Connection>();
  readonly #controls = new Set<Connection>();
  readonly #control = createServer({ noDelay: true }, (socket) => {
    this.#controls.add(new Connection(socket, this, true));
  });
  #server: Server | undefined;
  #service: ReplicaService | undefined;
  #sweep: NodeJS.Timeout | undefined;

  constructor(options: ReplicaOptions, profile: Profile) {
    this.#options = options;
    this.#profile = profile;
    this.#host = options.host ?? '127.0.0.1';
    this.bodyBytesMax = options.bodyBytesMax ?? BODY_BYTES_MAX;
    this.#stats = new ReplicaStats(options.idsMax ?? IDS_MAX);
    this.gate = new HoldGate(options.hold ?? false, (held) => {
      this.#stats.held = held;
      this.#stats.changed();
    });
    const onKill = options.onKill ?? (() => void this.crash());
    const maxNumSeqs = options.maxNumSeqs ?? MAX_NUM_SEQS;
    this.#slots = new RunningSlots(maxNumSeqs, profile.engine, this.#stats, this.gate, onKill);
    if (options.faults !== undefined) this.setFaults(options.faults);
  }

  get url(): string {
    return `http://${this.#host}:${this.port}`;
  }

  get controlUrl(): string {
    return `http://${this.#host}:${this.controlPort}`;
  }

  async open(): Promise<void> {
    this.port = this.#options.port ?? 0;
    await this.listen(true);
    this.controlPort = await listening(this.#control, this.#options.controlPort ?? 0, this.#host);
    const options = this.#options;
    this.#service = new ReplicaService(
      {
        name: options.name ?? String(this.port),
        model: options.model ?? 'sluice-sim',
        strictModel: options.strictModel ?? false,
        profile: this.#profile,
        random: createPrng(options.seed ?? this.port),
        apiKey: options.apiKey ?? '',
        recordRequests: options.recordRequests ?? false,
        lora: options.lora ?? { max: 0, loadMs: 0 },
      },
      {
        stats: this.#stats,
        gate: this.gate,
        rules: this.#rules,
        listen: (open) => this.listen(open),
        setSlowness: (factor) => this.#slots.setSlowness(factor),
      },
      this.#slots,
    );
    const timeoutMs = options.keepAliveTimeoutMs ?? KEEP_ALIVE_TIMEOUT_MS;
    const everyMs = Math.max(10, Math.min(timeoutMs / 10, LINGER_MS / 2));
    this.#sweep = setInterval(() => this.#closeIdle(timeoutMs), everyMs);
  }

  stats(): StatsSnapshot {
    return this.#stats.snapshot();
  }

  until(wanted: (stats: StatsSnapshot) => boolean): Promise<void> {
    return this.#stats.until(wanted);
  }

  ledger(idOrNonce?: string): AttemptRecord[] {
    return this.#stats.ledger(idOrNonce, Number.MAX_SAFE_INTEGER);
  }

  countOf(id: string): number {
    return this.#stats.countOf(id);
  }

  setFaults(rules: readonly FaultRule[]): void {
    const problem = this.#rules.replace(rules);
    if (problem !== undefined) throw new RangeError(problem);
  }

  async listen(open: boolean): Promise<void> {
    if (open === (this.#server !== undefined)) return;
    if (open) {
      const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
      this.port = await listening(server, this.port, this.#host);
      this.#server = server;
      return;
    }
    // Only the listener must be gone on return; close() would wait for every connection.
    this.#server?.close();
    this.#server = undefined;
    this.#closeIdle(0);
  }

  async drain(timeoutMs: number): Promise<void> {
    this.draining = true;
    await this.listen(false);
    const deadline = new Promise<void>((resolve) => {
      setTimeout(resolve, timeoutMs).unref();
    });
    const gone = (stats: StatsSnapshot): boolean => stats.in_flight + stats.connections === 0;
    await Promise.race([this.until(gone), deadline]);
    // Whoever waits on the control port hears of it before that closes as well.
    await new Promise((resolve) => void setImmediate(resolve));
    await this.close();
  }

  async crash(): Promise<void> {
    for (const connection of [...this.#connections]) connection.reset();
    await this.close();
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep);
    this.#slots.timers.clear();
    const closed = [this.#control, this.#server].map(
      (server) =>
        new Promise<void>((resolve) => void (server?.close(() => resolve()) ?? resolve())),
    );
    this.#server = undefined;
    for (const connection of [...this.#connections, ...this.#controls]) connection.destroy();
    await Promise.all(closed);
    await this.until((stats) => stats.connections === 0);
  }

  onRequest(connection: Connection, request: ParsedRequest): void {
    this.#service?.onRequest(connection, request);
  }

  onBadRequest(failure: ParseFailure): string {
    return this.#service?.onBadRequest(failure) ?? '';
  }

  onClosed(connection: Connection): void {
    if (this.#controls.delete(connection)) return;
    this.#connections.delete(connection);
    this.#stats.connections--;
    this.#stats.changed();
  }

  #accept(socket: Socket): void {
    this.#connections.add(new Connection(socket, this, false));
    this.#stats.connections++;
    this.#stats.connectionsTotal++;
  }

  #closeIdle(timeoutMs: number): void {
    const now = nowMs();
    for (const connection of this.#connections) {
      const idleMs = now - connection.idleSince;
      if (connection.lingering && idleMs > LINGER_MS) connection.destroy();
      else if (connection.idle && idleMs >= timeoutMs) connection.finish();
    }
  }
}

function listening(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, 4096, () => {
      server.off('error', reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}
