/**
 * The threads of one gateway: started, started again, told, stopped. Main thread; decides nothing.
 *
 * The handle of a thread is replaced in the same turn in which its successor is made from the current
 * members, so a message goes to the one or is known to the other.
 */
import { splitRows } from '../config/model-names.ts';
import type { Config } from '../config/schema.ts';
import type { KeyTable } from '../config/tenants.ts';
import { ControlLayout, ThreadPhase } from '../shm/control.layout.ts';
import { controlCounts } from '../shm/memory.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { ToThread } from '../shm/threads.ts';
import type { TokenAnswer, TokenTask } from '../shm/token-tasks.ts';
import type { Logger } from '../telemetry/log.ts';
import { holdFreePort } from './free-port.ts';
import { LedgerThread, wantsLedger } from './ledger-thread.ts';
import { SpareThread } from './spare-thread.ts';
import {
  acceptorStart,
  forwarderStart,
  ledgerStart,
  limiterStart,
  modelRows,
  type StartContext,
  schedulerStart,
  tracerStart,
} from './start-data.ts';
import type { TenantTables } from './tenants.ts';
import { ThreadHandle } from './thread-handle.ts';
import type { GatewayViews } from './views.ts';

type Applied = Extract<ToThread, { kind: 'replica' | 'forget' }>;

export interface ThreadsParts {
  /** As it is at the moment of the call. */
  context(): StartContext;
  readonly views: GatewayViews;
  readonly logger: Logger;
  readonly metrics: MetricsWriter;
  onDeath(name: string, error: unknown): void;
  /** Never rejects. */
  count(task: TokenTask): Promise<TokenAnswer>;
}

const graceMs = 2000;

export class GatewayThreads {
  readonly #parts: ThreadsParts;
  #acceptors: ThreadHandle[] = [];
  #forwarders: ThreadHandle[] = [];
  #scheduler: ThreadHandle | undefined;
  /** There where limits are shared by way of a store. */
  #limiter: ThreadHandle | undefined;
  readonly #ledger: LedgerThread | undefined;
  /** There where requests are traced. */
  readonly #tracer: SpareThread | undefined;

  constructor(parts: ThreadsParts) {
    this.#parts = parts;
    const { context, logger, metrics } = parts;
    const { config, memory } = context();
    if (wantsLedger(config)) {
      const startData = () => ledgerStart(context());
      this.#ledger = new LedgerThread({ logger, metrics, startData });
    }
    if (memory.spanRings.length > 0) {
      const startData = () => tracerStart(context());
      this.#tracer = new SpareThread('tracer', { logger, metrics, startData });
    }
  }

  /** One at least listens, or is about to. */
  get hasAcceptors(): boolean {
    return this.#acceptors.length > 0;
  }

  /** Starts every thread but the acceptors; resolves once all of them serve. */
  async startServing(): Promise<void> {
    const { forwarders, limiters } = this.#parts.context().memory.size;
    const names = Array.from({ length: forwarders }, (_, i) => `forwarder-${i}`);
    if (limiters === 1) names.push('limiter');
    this.#tracer?.start();
    await Promise.all(['scheduler', ...names].map((name) => this.#start(name)));
  }

  /** Resolves with the port. `assertOpen` throws once the start is taken back. */
  async startAcceptors(assertOpen: () => void): Promise<number> {
    this.#ledger?.start();
    await this.#ledger?.ready(); // from their first request on acceptors know whose budget is spent
    const context = this.#parts.context();
    const { listen, threads } = context.config;
    const isShared = listen.port === 0 && threads.acceptors > 1;
    const held = isShared ? await holdFreePort(listen.host) : undefined;
    let port = held?.port ?? listen.port;
    try {
      // One after the other: two that fail would each tell of an address that is taken.
      for (let i = 0; i < threads.acceptors; i++) {
        assertOpen();
        const start = { ...acceptorStart(context, i), port };
        const acceptor = new ThreadHandle(
          `acceptor-${i}`,
          'acceptor',
          start,
          this.#parts.onDeath.bind(this.#parts),
        );
        acceptor.serveCounts((task) => this.#parts.count(task));
        this.#acceptors.push(acceptor);
        port = await acceptor.ready();
      }
      assertOpen();
    } finally {
      held?.release();
    }
    return port;
  }

  /** Closes the listening sockets; connections stay. Their events are for the ledger of the other process. */
  async unlisten(): Promise<void> {
    void this.#ledger?.stop(graceMs);
    await Promise.all(this.#acceptors.map((acceptor) => acceptor.unlisten()));
  }

  /** Starts a scheduler, forwarder or limiter in the place of a dead one; resolves once it serves. */
  async restart(name: string): Promise<void> {
    const { memory } = this.#parts.context();
    const { thread } = ControlLayout.place(controlCounts(memory.size)).at;
    const row = thread.base + this.#parts.views.threadId(name) * thread.stride;
    // Until the successor says that it runs, nobody waits for its sign of life.
    Atomics.store(new Int32Array(memory.control), row + thread.at.phase, ThreadPhase.starting);
    await this.#start(name);
  }

  /** Ends a thread that is beyond help. False: there is none that may be ended, or it does not end. */
  kill(name: string, reason: string): boolean {
    const thread = this.#restartable().find((each) => each.name === name);
    if (thread === undefined || thread.isUnkillable) return false;
    thread.kill(reason);
    return true;
  }

  /** False: there is no such thread. */
  send(name: string, message: ToThread): boolean {
    const spare = [this.#ledger, this.#tracer];
    const all = [...this.#acceptors, ...this.#restartable(), ...spare];
    const thread = all.find((each) => each?.name === name);
    thread?.send(message);
    return thread !== undefined;
  }

  async tellForwarders(message: Applied): Promise<void> {
    await Promise.all(this.#forwarders.map((thread) => thread.apply(message)));
  }

  async tellAcceptors(message: Applied): Promise<void> {
    await Promise.all(this.#acceptors.map((thread) => thread.apply(message)));
  }

  /** Resolves when every acceptor goes by them, and the ledger before: it writes the rows they read. */
  async tellTenants({ keys, limitNames, budgets }: TenantTables): Promise<void> {
    this.#limiter?.send({ kind: 'limitNames', names: limitNames });
    await this.#ledger?.setBudgets(budgets);
    await Promise.all(this.#acceptors.map((thread) => thread.applyKeys(keys)));
  }

  /**
   * Resolves when every thread goes by the models and splits of the config, and acceptors by the keys,
   * which are by their numbers. Acceptors first: their answers tell who served before anybody else may.
   */
  async tellModels(config: Config, keys: KeyTable): Promise<void> {
    const models = modelRows(config);
    const names = { kind: 'names', models, splits: splitRows(config), keys } as const;
    await Promise.all(this.#acceptors.map((thread) => thread.applyModels(names)));
    const others = [...this.#forwarders, this.#scheduler].filter((t) => t !== undefined);
    await Promise.all(others.map((thread) => thread.applyModels({ kind: 'models', models })));
  }

  async stop(): Promise<void> {
    const isNode = this.#parts.context().engine === 'node';
    // Acceptors first and never by force: a live uWebSockets.js thread aborts the process.
    await Promise.all(this.#acceptors.map((thread) => thread.stop(graceMs, isNode)));
    const others = [...this.#restartable(), this.#ledger];
    await Promise.all(others.map((thread) => thread?.stop(graceMs, true)));
    // Last: what the others wrote at their end is still sent.
    await this.#tracer?.stop(graceMs);
  }

  #restartable(): ThreadHandle[] {
    return [...this.#forwarders, this.#scheduler, this.#limiter].filter((t) => t !== undefined);
  }

  async #start(name: string): Promise<void> {
    const context = this.#parts.context();
    const onDeath = (dead: string, error: unknown): void => {
      // Nobody is to wait for an answer meanwhile.
      if (dead === 'limiter') this.#parts.views.setLimitStoreDown();
      this.#parts.onDeath(dead, error);
    };
    if (name === 'scheduler') {
      this.#scheduler = new ThreadHandle(name, 'scheduler', schedulerStart(context), onDeath);
      await this.#scheduler.ready();
    } else if (name === 'limiter') {
      this.#limiter = new ThreadHandle(name, 'limiter', limiterStart(context), onDeath);
      await this.#limiter.ready();
    } else {
      const index = Number(name.slice('forwarder-'.length));
      const thread = new ThreadHandle(name, 'forwarder', forwarderStart(context, index), onDeath);
      this.#forwarders[index] = thread;
      await thread.ready();
    }
  }
}
