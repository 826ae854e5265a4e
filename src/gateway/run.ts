/**
 * Runs one gateway as the work of this process: start, ready line, signals, exit code. Main thread.
 *
 * First SIGTERM or SIGINT: drain, or end at once while it starts. Second: cut with error events.
 * SIGHUP, and a change of a watched config file: reload, as soon as it serves. SIGUSR2: ask the supervisor
 * for a process beside this one; once that serves the supervisor says so, and this one leaves. A supervisor
 * that goes away counts as a first signal. A thread beyond repair ends the process with a failure, and `abort` makes sure of it even when
 * uWebSockets.js holds its thread.
 */
import { setFlagsFromString } from 'node:v8';
import type { LoadResult } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { ExitCode } from '../lib/exit-code.ts';
import { isListenError } from '../lib/listen-error.ts';
import type { FromSupervisor, ToSupervisor } from '../lib/process-messages.ts';
import { addressText, type ListenerAddresses } from './addresses.ts';
import type { ConfigWatch } from './config-watch.ts';
import { Gateway } from './gateway.ts';
import { type Addresses, ClosedWhileStarting } from './gateway-options.ts';

export interface RunOptions {
  readonly config: Config;
  /** Reads the config file again; absent where there is none. */
  readonly reload?: () => Promise<LoadResult>;
  /** Of the config file, which is read again when it changes; absent: only when asked. */
  readonly watch?: ConfigWatch;
  /** Started by a supervisor, which may start another beside it. */
  readonly isSupervised?: boolean;
  /** Addresses of another process that serves; this one is to take over from it. */
  readonly takesOver?: Partial<ListenerAddresses> | undefined;
  /** Another process writes the same files, and is the one that renames them. */
  readonly sharesFiles?: boolean;
  readonly onReady: (addresses: Addresses, engine: string) => void;
}

/** Threads get this long to end after a fatal error. */
const fatalGraceMs = 3000;

/**
 * How far a heap of this process may grow over what lives in it before it is collected. V8's own
 * answer for heaps of a few MiB, several times that, suits a program with one of them; here each
 * thread has one. Measured with 360 requests in flight: 213 MB in all, and not 232 MB and growing.
 */
const heapGrowingPercent = 50;

/** Resolves with the exit code once all is closed; throws when it cannot be built or cannot listen. */
export async function runGateway(options: RunOptions): Promise<number> {
  const { config, reload, watch, onReady, isSupervised = false } = options;
  const { takesOver, sharesFiles } = options;
  let fail: (reason: string) => void = () => {};
  const failed = new Promise<never>((_, reject) => {
    fail = (reason) => reject(new Error(reason));
  });
  failed.catch(() => {}); // it may fail before anybody waits for it
  setFlagsFromString(`--heap-growing-percent=${heapGrowingPercent}`);
  const restart = isSupervised ? () => tell({ kind: 'restart' }) : undefined;
  const drainMs = config.drain.timeout;
  const onLeaving = (): void => tell({ kind: 'leaving', drainMs });
  const gateway = new Gateway({
    ...{ config, reload, restart, takesOver, sharesFiles, onLeaving, onFatal: fail },
  });
  const { logger } = gateway;
  // Before the start, which may take as long as the slowest probe: the default of each would kill.
  const signals = new Signals(gateway);
  try {
    const addresses = await Promise.race([gateway.listen(), failed]);
    // The supervisor hears of it first: whoever reads the ready line may kill this process at once.
    const listen = addressText(config.listen);
    const admin = addressText(config.admin);
    tell({ kind: 'ready', restartMs: config.restart.timeout, drainMs, listen, admin });
    onReady(addresses, gateway.engine);
    signals.serving();
    watch?.follow(() => void gateway.reload());
    await Promise.race([signals.stopped, failed]);
    logger.info('stopped');
    return ExitCode.ok;
  } catch (error) {
    if (error instanceof ClosedWhileStarting) {
      logger.info('stopped before it served');
      return ExitCode.ok;
    }
    if (!isListenError(error)) logger.fatal('the gateway cannot go on', { err: error });
    const abort = setTimeout(() => process.abort(), fatalGraceMs);
    await gateway.close();
    clearTimeout(abort);
    if (isListenError(error)) throw error;
    return ExitCode.failed;
  } finally {
    watch?.stop();
    await logger.close(1000);
    // A thread that does not end keeps the process alive and cannot be terminated (RELIABILITY 0.1).
    setTimeout(() => process.abort(), fatalGraceMs).unref();
    // An open channel to the parent would keep the event loop, and so the process, alive.
    if (process.connected) process.disconnect();
  }
}

function tell(message: ToSupervisor): void {
  // A supervisor that is gone is heard of by its closed channel.
  if (process.connected) process.send?.(message, () => {});
}

class Signals {
  /** Settles with the drain that the first of them began. */
  readonly stopped: Promise<void>;
  readonly #gateway: Gateway;
  #stopping = false;
  #isServing = false;
  #wantsReload = false;

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
    this.stopped = new Promise((resolve, reject) => {
      const stop = (): void => {
        if (this.#stopping) {
          gateway.cut();
          return;
        }
        this.#stopping = true;
        gateway.drain().then(resolve, reject);
      };
      process.on('message', (message: FromSupervisor) => {
        if (message.kind === 'replaced') {
          gateway.restarts.replaced();
          gateway.leave().then(resolve, reject);
        } else if (message.kind === 'alone') gateway.alone();
        else if (message.kind === 'restarted') gateway.restarts.ended(message.problem);
      });
      process.on('SIGTERM', stop);
      process.on('SIGINT', stop);
      process.once('disconnect', () => {
        if (!this.#stopping) stop();
      });
    });
    this.stopped.catch(() => {}); // a drain may fail before anybody waits for it
    process.on('SIGHUP', () => this.#reload());
    process.on('SIGUSR2', () => {
      if (!gateway.restarts.ask()) gateway.logger.error('SIGUSR2 is ignored: no supervisor');
    });
  }

  /** What was asked while it started is done. */
  serving(): void {
    this.#isServing = true;
    if (this.#wantsReload) this.#reload();
  }

  #reload(): void {
    this.#wantsReload = true;
    if (this.#isServing) void this.#gateway.reload();
  }
}
