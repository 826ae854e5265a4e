/**
 * The supervisor process: starts the gateway process, starts it again when it dies, passes signals on,
 * and on SIGUSR2 starts another beside it that takes over.
 *
 * It holds no socket and no state, so that nothing in the gateway can harm it. Should the supervisor die,
 * the gateway sees its IPC channel close and drains. Invariant: at most one process serves or is to
 * serve, at most one starts beside it, at most one has been replaced and leaves; no two of the last two.
 * Of two that live the older one renames files that both write; the other is told when it is left alone.
 */
import { ExitCode } from '../lib/exit-code.ts';
import { type Ending, GatewayProcess, type ProcessEvents, type Ready } from './gateway-process.ts';

export interface SupervisorOptions {
  /** Arguments of the gateway process after the program, as `serve …`. */
  readonly args: readonly string[];
  readonly say: (text: string) => void;
}

const backoffMsMin = 100;
const backoffMsMax = 10_000;
/** A gateway that served this long was well: the next death starts the back-off anew. */
const steadyMs = 60_000;
/** A start that is taken back ends at once; one that hangs is killed. */
const abandonMs = 5000;
/** What a process needs beyond its `drain.timeout` to end by itself. */
const leaveGraceMs = 15_000;
const stopSignals = ['SIGTERM', 'SIGINT'] as const;

/** Wait before start number `deaths + 1` in a row: 0.1, 0.2, 0.4 … 10 s. */
export function backoffMs(deaths: number): number {
  return Math.min(backoffMsMax, backoffMsMin * 2 ** Math.max(0, deaths - 1));
}

/** Runs until the gateway ends by request or never comes to serve; resolves with the exit code. */
export async function supervise(options: SupervisorOptions): Promise<number> {
  const supervisor = new Supervisor(options);
  const onStop = (signal: NodeJS.Signals): void => supervisor.stop(signal);
  const onReload = (): void => supervisor.reload();
  const onRestart = (): void => supervisor.restart();
  for (const signal of stopSignals) process.on(signal, onStop);
  process.on('SIGHUP', onReload);
  process.on('SIGUSR2', onRestart);
  try {
    return await supervisor.run();
  } finally {
    for (const signal of stopSignals) process.off(signal, onStop);
    process.off('SIGHUP', onReload);
    process.off('SIGUSR2', onRestart);
  }
}

class Supervisor implements ProcessEvents {
  readonly #options: SupervisorOptions;
  readonly #finished = Promise.withResolvers<number>();
  /** Serves, or is to serve as soon as it can. */
  #current: GatewayProcess | undefined;
  /** Starts beside it, to take over. */
  #next: GatewayProcess | undefined;
  /** Has been replaced and finishes what it has. */
  #leaving: GatewayProcess | undefined;
  /** Started beside one that has died since; serves as soon as it can. */
  #promoted: GatewayProcess | undefined;
  #backoff: NodeJS.Timeout | undefined;
  #hasServed = false;
  #isStopping = false;
  #wantsRestart = false;
  #deaths = 0;
  /** Of the end of the last one that was to serve, once nobody is to serve any more. */
  #code: number | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Resolves with the exit code. */
  run(): Promise<number> {
    this.#startAlone();
    return this.#finished.promise;
  }

  stop(signal: NodeJS.Signals): void {
    this.#isStopping = true;
    this.#code ??= ExitCode.ok;
    clearTimeout(this.#backoff);
    for (const each of this.#living) each.kill(signal);
    this.#settle();
  }

  reload(): void {
    this.#current?.reload();
    this.#next?.reload(); // it may have read the file before the change
  }

  /** One at a time: a further wish is for the file and the program as they are after this one. */
  restart(): void {
    if (this.#next !== undefined || this.#leaving !== undefined)
      this.#options.say('a restart is under way; another follows it');
    this.#wantsRestart = true;
    this.#settle();
  }

  ready(process: GatewayProcess): void {
    if (process === this.#leaving) {
      this.#limitLeaving(process, process.ready?.drainMs ?? 0);
      return;
    }
    this.#hasServed = true;
    process.unlimited();
    if (process === this.#next && !this.#isStopping) this.#replace(process);
    else if (process === this.#promoted) process.tell({ kind: 'restarted', problem: '' });
    this.#promoted = undefined;
    this.#settle();
  }

  /** Its limit for a start, or for one that is taken back, holds no longer: it has clients. */
  leaving(process: GatewayProcess, drainMs: number): void {
    if (process !== this.#current) this.#limitLeaving(process, drainMs);
  }

  ended(process: GatewayProcess, ending: Ending): void {
    if (process === this.#leaving) this.#onLeft(ending);
    else if (process === this.#next)
      this.#failed(`the new process ended (${inWords(ending)}) before it served`);
    else if (process === this.#current) this.#onDeath(process, ending);
    for (const last of this.#living) last.tell({ kind: 'alone' }); // of two that there were at most
    this.#settle();
  }

  get #living(): readonly GatewayProcess[] {
    return [this.#current, this.#next, this.#leaving].filter((each) => each !== undefined);
  }

  #replace(next: GatewayProcess): void {
    const old = this.#current;
    this.#current = next;
    this.#next = undefined;
    next.tell({ kind: 'restarted', problem: '' });
    if (old === undefined) return;
    this.#leaving = old;
    old.tell({ kind: 'replaced' });
    this.#limitLeaving(old, old.ready?.drainMs ?? 0);
  }

  #onLeft(ending: Ending): void {
    this.#leaving = undefined;
    if (ending.code === ExitCode.ok) return;
    this.#options.say(`the process that was replaced ended badly (${inWords(ending)})`);
  }

  /** The process beside the one that serves will not take over. */
  #failed(problem: string): void {
    this.#next = undefined;
    if (this.#isStopping) return;
    this.#options.say(`restart failed: ${problem}; the process that serves stays`);
    this.#current?.tell({ kind: 'restarted', problem });
  }

  #onDeath(process: GatewayProcess, ending: Ending): void {
    // Whoever was to take over has nobody to take over from.
    this.#current = this.#next;
    this.#promoted = this.#next;
    this.#next = undefined;
    if (this.#current !== undefined || this.#isStopping) {
      // Asked to stop before it served: it has, whether or not it could hear of it.
      if (this.#isStopping && process.ready !== undefined)
        this.#code = ending.code ?? ExitCode.failed;
      return;
    }
    // One that never served has said why. After that everything is tried again, also a config that
    // went bad meanwhile: whoever mends the file has the service back.
    if (ending.code === ExitCode.ok || !this.#hasServed) {
      this.#code = ending.code ?? ExitCode.failed;
      return;
    }
    if (performance.now() - process.startedMs > steadyMs) this.#deaths = 0;
    this.#deaths++;
    const wait = backoffMs(this.#deaths);
    this.#options.say(
      `the gateway process ended (${inWords(ending)}); starting it again in ${wait} ms`,
    );
    this.#backoff = setTimeout(() => this.#startAlone(), wait);
  }

  /** After every event: what is due now. */
  #settle(): void {
    if (this.#code !== undefined) {
      if (this.#living.length === 0) this.#finished.resolve(this.#code);
      return;
    }
    const isBusy = this.#next !== undefined || this.#leaving !== undefined;
    if (!this.#wantsRestart || isBusy || this.#current?.ready === undefined) return;
    this.#wantsRestart = false;
    this.#startBeside(this.#current.ready);
  }

  #startAlone(): void {
    // It reads the file anew: nobody need be started after it.
    this.#wantsRestart = false;
    const isAlone = this.#leaving === undefined;
    this.#current = new GatewayProcess(this.#options.args, undefined, isAlone, this);
  }

  #startBeside(ready: Ready): void {
    const { restartMs: limitMs } = ready;
    const next = new GatewayProcess(this.#options.args, ready, false, this);
    this.#next = next;
    next.limit(limitMs, () => {
      // The one it was to replace has died: another start will not wait for replicas.
      if (next === this.#current) next.kill('SIGKILL');
      else this.#abandon(next, limitMs);
    });
  }

  /** It has not served yet: it ends at once. Should it come to serve meanwhile it leaves as one that did. */
  #abandon(next: GatewayProcess, limitMs: number): void {
    this.#failed(`the new process did not serve within ${limitMs} ms`);
    this.#leaving = next;
    next.tell({ kind: 'replaced' });
    next.limit(abandonMs, () => next.kill('SIGKILL'));
  }

  #limitLeaving(leaving: GatewayProcess, drainMs: number): void {
    leaving.limit(drainMs + leaveGraceMs, () => {
      this.#options.say('the process that was replaced does not end; it is killed');
      leaving.kill('SIGKILL');
    });
  }
}

const inWords = ({ code, signal }: Ending): string => signal ?? `exit ${code}`;
