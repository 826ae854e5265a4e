/**
 * The gateway: shared memory, threads, health, admin listener; started, drained and closed as one.
 * Runs on the main thread of the gateway process and never blocks it.
 *
 * A scheduler or forwarder that dies without being asked is started again (thread-recovery.ts). An
 * acceptor cannot be, and what recovery does not trust ends the gateway too (`onFatal`): the supervisor
 * starts a clean process. Requests are never touched here.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { resolveEngine } from '../acceptor/uws-binary.ts';
import { adaptersOf, loadableAdapters } from '../config/adapters.ts';
import { isListenError } from '../lib/listen-error.ts';
import { ControlLayout, DrainStage, ThreadId } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { faultHooksModule } from '../shm/fault-hooks-loader.ts';
import { bellsOf, controlCounts, createMemory, type SharedMemory } from '../shm/memory.ts';
import { createMetricsRegions } from '../shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../shm/metrics.ts';
import { Readiness } from '../shm/readiness.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { defaultMetricDims, threadKindOf } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { isJoined, probeSole } from './addresses.ts';
import { AdminServer } from './admin-server.ts';
import { AuditLog } from './audit.ts';
import { BreakerLog } from './breaker-log.ts';
import { descriptorProblem, replicaConnections } from './descriptors.ts';
import { ExplainView } from './explain.ts';
import { GatewayAdmin } from './gateway-admin.ts';
import { type Addresses, ClosedWhileStarting, type GatewayOptions } from './gateway-options.ts';
import { GatewayThreads } from './gateway-threads.ts';
import type { HealthChecker } from './health.ts';
import type { EngineScraper } from './health-engine.ts';
import { LoraLoader } from './lora-loader.ts';
import { Membership } from './membership.ts';
import { responseRingBytes } from './memory-limit.ts';
import { OverloadWatch } from './overload.ts';
import { createHealth, createScraper } from './replica-watch.ts';
import { Restarts } from './restarts.ts';
import { RunningConfig } from './running-config.ts';
import { type StartContext, threadLog } from './start-data.ts';
import { untilReplicasServe } from './take-over.ts';
import { Tenants } from './tenants.ts';
import { ThreadRecovery } from './thread-recovery.ts';
import { TokenizerPool } from './tokenizer-pool.ts';
import { GatewayViews } from './views.ts';
import { Watchdog } from './watchdog.ts';

const faultAdmin = faultHooksModule && (await import('./fault-admin.ts'));

const pollMs = 10;
/** After the cut, streams have this long to end with an error event. */
const cutGraceMs = 1000;

export class Gateway {
  readonly engine: 'uws' | 'node';
  readonly logger: Logger;
  readonly #options: GatewayOptions;
  readonly #config: RunningConfig;
  readonly #memory: SharedMemory;
  readonly #control: Int32Array;
  readonly #at: ReturnType<typeof ControlLayout.place>['at'];
  readonly #membership: Membership;
  readonly #health: HealthChecker;
  readonly #scraper: EngineScraper;
  readonly #loras: LoraLoader;
  readonly #views: GatewayViews;
  readonly #metricsRegions: SharedArrayBuffer[];
  readonly #metrics: MetricsWriter;
  readonly #actions: GatewayAdmin;
  readonly #admin: AdminServer;
  readonly #watchdog: Watchdog;
  readonly #threads: GatewayThreads;
  readonly #recovery: ThreadRecovery;
  readonly #breakerLog: BreakerLog;
  readonly restarts: Restarts;
  readonly #tenants: Tenants;
  readonly #overload: OverloadWatch;
  readonly #tokenizers: TokenizerPool;
  #closing: Promise<void> | undefined;
  #leaving: Promise<void> | undefined;
  /** What is awaited before clients are taken is awaited no longer. */
  #isHurried = false;
  #cut = false;
  /** True from the moment the last acceptor listens. */
  #isServing = false;

  /** Throws when this machine cannot run the config: engine refused, too few descriptors. */
  constructor(options: GatewayOptions) {
    const { config } = options;
    this.#options = options;
    this.#config = new RunningConfig(config);
    const resolved = resolveEngine(config.listen.engine, config.listen.tls?.ca !== undefined);
    if ('refused' in resolved) throw new Error(resolved.refused);
    this.engine = resolved.engine;
    const problem = descriptorProblem(
      config.listen.max_connections,
      config.threads.acceptors,
      replicaConnections(
        config.models.flatMap((m) => m.replicas).map((r) => r.max_in_flight),
        config.threads.forwarders,
      ),
    );
    if (problem !== undefined) throw new Error(problem);
    this.#memory = createMemory({
      acceptors: config.threads.acceptors,
      forwarders: config.threads.forwarders,
      slots: config.memory.slots,
      arenaBytes: config.memory.arena,
      responseRingBytes,
      limiters: config.limits.store === 'local' ? 0 : 1,
      responses: config.memory.responses,
      isTraced: config.tracing.endpoint !== '',
    });
    this.#control = new Int32Array(this.#memory.control);
    this.#at = ControlLayout.attach(this.#memory.control, controlCounts(this.#memory.size)).at;
    this.#metricsRegions = createMetricsRegions(this.#memory.size);
    this.#metrics = new MetricsWriter(
      this.#metricsRegions[ThreadId.main] as SharedArrayBuffer,
      defaultMetricDims,
    );
    this.logger = createThreadLog('main', threadLog(config.log), this.#metrics);
    if (resolved.fallback !== '') this.logger.warn(resolved.fallback);
    this.#membership = new Membership(
      this.#memory,
      config.models.map(adaptersOf),
      config.models.map(loadableAdapters),
    );
    this.#views = new GatewayViews(this.#memory);
    this.restarts = new Restarts(options.restart, this.#metrics, this.logger);
    this.#tenants = new Tenants(config, this.#memory, (tables) =>
      this.#threads.tellTenants(tables),
    );
    this.#health = createHealth(config, this.#membership, this.#metrics, this.logger);
    this.#scraper = createScraper(config, this.#membership, this.logger);
    this.#loras = new LoraLoader({
      ...{ config, membership: this.#membership, memory: this.#memory, logger: this.logger },
      metrics: this.#metrics,
      queued: (model) => this.#views.queued(model),
    });
    this.#overload = new OverloadWatch(this.#memory, config, this.logger, () =>
      this.#views.arenaBytesInUse(),
    );
    this.#tokenizers = new TokenizerPool({ config, memory: this.#memory, logger: this.logger });
    this.#actions = this.#createActions();
    Atomics.store(this.#control, this.#at.sharesFiles, options.sharesFiles === true ? 1 : 0);
    const mayRename = (): boolean => Atomics.load(this.#control, this.#at.sharesFiles) === 0;
    const audit = new AuditLog(config.admin.audit_log, this.logger, this.#metrics, mayRename);
    this.#admin = new AdminServer(this.#actions, config.admin.token, this.restarts.byHand, audit);
    this.#breakerLog = new BreakerLog(this.#membership, this.logger);
    this.#threads = new GatewayThreads({
      context: () => this.#startContext(),
      views: this.#views,
      logger: this.logger,
      metrics: this.#metrics,
      onDeath: (name, error) => this.#onDeath(name, error),
      count: (task) => this.#tokenizers.ask(task),
    });
    this.#recovery = new ThreadRecovery({
      logger: this.logger,
      start: (name) => this.#threads.restart(name),
      onRestarted: (name) => {
        this.#metrics.add(metrics.threadRestarts, threadKindOf(name), 1);
      },
      giveUp: (reason, error) => this.#fatal(reason, error),
    });
    this.#watchdog = new Watchdog(this.#views, (name, reason) => this.#onSilent(name, reason));
  }

  /**
   * Opens the admin listener, starts every thread, probes every replica once, then listens for clients:
   * a second gateway of the same config ends at the admin port, before the kernel gives it connections.
   * One that takes over opens the admin listener last where it has that of the other process, so that
   * nobody meets it while it starts.
   * Rejects with a ListenError when an address is taken.
   */
  async listen(): Promise<Addresses> {
    try {
      return await this.#start();
    } catch (error) {
      const isTakenBack = this.#closing !== undefined || this.#leaving !== undefined;
      // The other process goes on; the clients that came here meanwhile are served.
      if (this.#isServing || this.#leaving !== undefined) await this.leave();
      if (!isTakenBack) throw error;
      // What else fails of a start that is taken back is no news.
      await this.#closing;
      await this.#admin.close(); // it may have opened since
      throw new ClosedWhileStarting();
    }
  }

  async #start(): Promise<Addresses> {
    const { config, takesOver } = this.#options;
    const joins = takesOver !== undefined && isJoined(config.admin, takesOver.admin);
    const listenAdmin = () => this.#admin.listen(config.admin.host, config.admin.port, joins);
    this.#overload.start();
    let adminPort = joins ? 0 : await listenAdmin();
    if (takesOver !== undefined && !isJoined(config.listen, takesOver.listen))
      await probeSole('listen', config.listen);
    this.#assertOpen();
    for (const [model, { replicas }] of config.models.entries()) {
      for (const replica of replicas) this.#membership.add(replica, model);
    }
    await Promise.all([this.#threads.startServing(), this.#tokenizers.start()]);
    for (const member of this.#membership) this.#membership.activate(member);
    this.#assertOpen();
    await Promise.all([...this.#membership].map((member) => this.#health.watch(member)));
    this.#scraper.start();
    await this.#loras.start();
    if (takesOver !== undefined) {
      await untilReplicasServe({
        membership: this.#membership,
        readiness: new Readiness(this.#memory),
        logger: this.logger,
        limitMs: config.restart.timeout,
        isHurried: () => this.#isHurried,
        assertOpen: () => this.#assertOpen(),
      });
    }
    const port = await this.#threads.startAcceptors(() => this.#assertOpen());
    this.#watchdog.start();
    this.#breakerLog.start();
    this.#isServing = true;
    if (joins) adminPort = await listenAdmin();
    return { port, adminPort };
  }

  /** Whoever closes stops the threads there are: a start goes on to the next step only while it is open. */
  #assertOpen(): void {
    if (this.#closing !== undefined || this.#leaving !== undefined) throw new ClosedWhileStarting();
  }

  /** No other process is left: every moment of a start that goes on is an outage. */
  alone(): void {
    this.#isHurried = true;
    Atomics.store(this.#control, this.#at.sharesFiles, 0);
  }

  /**
   * Stops taking requests and waits for those in flight; whoever is left at `drain.timeout`, or at
   * `cut()`, gets an error event. Resolves once everything is closed; a gateway that starts
   * and has no requests is closed at once.
   */
  async drain(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing;
    // The first of several acceptors may have requests while the others start.
    if (!this.#isServing && this.#views.slotsInUse() === 0) return this.close();
    const { settle, timeout } = this.#options.config.drain;
    this.#setDraining(DrainStage.announced);
    this.logger.info('draining', { count: this.#views.slotsInUse() });
    const deadline = performance.now() + settle + timeout;
    await this.#waitUntil(() => this.#cut, performance.now() + settle);
    this.#setDraining(DrainStage.refusing);
    // Acceptors claim a slot, then look at the stage: whoever got in before it shows in the table.
    await this.#waitUntil(() => this.#cut || this.#views.slotsInUse() === 0, deadline);
    await this.close();
  }

  /**
   * Another process has taken over: gives it the addresses, serves the connections that are left, each
   * until its next answer, and closes when none is left or at `drain.timeout`.
   */
  leave(): Promise<void> {
    this.#leaving ??= this.#leave();
    return this.#leaving;
  }

  async #leave(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing;
    // Acceptors may have clients of whom nothing shows in the table, from the moment they listen.
    if (!this.#threads.hasAcceptors) return this.close();
    this.#options.onLeaving?.();
    const deadline = performance.now() + this.#options.config.drain.timeout;
    // Before answers close connections: whose client comes back at once must not queue here again.
    await Promise.all([this.#admin.stopListening(), this.#threads.unlisten()]);
    this.#setDraining(DrainStage.replaced);
    this.logger.info('leaving: another process has taken over', {
      count: this.#views.slotsInUse(),
    });
    const isLeft = (): boolean => this.#views.connections() + this.#views.slotsInUse() > 0;
    await this.#waitUntil(() => this.#cut || !isLeft(), deadline);
    await this.close();
  }

  /** Reads the config file again and applies it. What is wrong goes to the log. */
  async reload(): Promise<void> {
    try {
      await this.#actions.reload();
      this.logger.info('config reloaded');
    } catch (error) {
      this.logger.error('config not reloaded; the old one stays', { err: error });
    }
  }

  /** Ends a running drain: what is in flight is cut with error events. */
  cut(): void {
    this.#cut = true;
  }

  /** Cuts what is in flight and stops every thread. */
  close(): Promise<void> {
    this.#cut = true;
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #onDeath(name: string, error: unknown): void {
    // An address that is taken is the operator's to change: `listen` rejects with it.
    if (this.#closing !== undefined || isListenError(error)) return;
    if (!this.#isServing || name.startsWith('acceptor')) this.#fatal(`${name} died`, error);
    else this.#recovery.died(name, error);
  }

  #onSilent(name: string, reason: string): void {
    if (!this.#threads.kill(name, reason)) this.#fatal(reason, undefined);
  }

  async #close(): Promise<void> {
    this.#watchdog.stop();
    this.#breakerLog.stop();
    this.#overload.stop();
    await Promise.all([this.#health.stop(), this.#scraper.stop(), this.#loras.stop()]);
    this.#setDraining(DrainStage.refusing);
    if (this.#views.slotsInUse() > 0) {
      Atomics.store(this.#control, this.#at.stopping, 1);
      this.#ringAll();
      const limit = performance.now() + cutGraceMs;
      await this.#waitUntil(() => this.#views.slotsInUse() === 0, limit);
    }
    await this.#threads.stop();
    await Promise.all([this.#tokenizers.close(), this.#admin.close()]);
  }

  #fatal(reason: string, error: unknown): void {
    if (this.#closing !== undefined) return;
    this.logger.fatal(reason, { err: error });
    this.#options.onFatal(reason, error);
  }

  #setDraining(stage: DrainStage): void {
    if (stage < Atomics.load(this.#control, this.#at.draining)) return;
    Atomics.store(this.#control, this.#at.draining, stage);
    this.#ringAll();
  }

  #ringAll(): void {
    const bellOf = bellsOf(this.#memory.size);
    for (let id = 0; id < ThreadId.total(this.#memory.size); id++) {
      ring(this.#control, bellOf(id));
    }
  }

  async #waitUntil(done: () => boolean, limit: number): Promise<void> {
    while (!done() && performance.now() < limit) await sleep(pollMs);
  }

  #startContext(): StartContext {
    return {
      config: this.#config.now,
      engine: this.engine,
      memory: this.#memory,
      metrics: this.#metricsRegions,
      members: [...this.#membership, ...this.#membership.leaving],
      ...this.#tenants.tables,
    };
  }

  #createActions(): GatewayAdmin {
    return new GatewayAdmin({
      options: this.#options,
      logger: this.logger,
      engine: this.engine,
      isServing: () => this.#isServing,
      membership: this.#membership,
      views: this.#views,
      explain: new ExplainView(this.#memory.explain, this.#options.config.models, this.#membership),
      health: this.#health,
      overload: this.#overload,
      reader: new MetricsReader(defaultMetricDims, this.#metricsRegions),
      writer: this.#metrics,
      readiness: new Readiness(this.#memory),
      restarts: this.restarts,
      tenants: this.#tenants,
      config: this.#config,
      tellModels: (config, keys) => this.#threads.tellModels(config, keys),
      tokenizers: this.#tokenizers,
      fault: faultAdmin && ((body) => faultAdmin.applyFault(body, this.#threads)),
      tellForwarders: (message) => this.#threads.tellForwarders(message),
      tellAcceptors: (message) => this.#threads.tellAcceptors(message),
    });
  }
}
