/**
 * One worker thread as the main thread sees it: start, messages, orderly stop, unexpected death.
 * Runs on the main thread.
 */
import { Worker } from 'node:worker_threads';
import type { BudgetRow, KeyTable } from '../config/tenants.ts';
import { nowMs } from '../lib/clock.ts';
import { faultHooksModule } from '../shm/fault-hooks-loader.ts';
import type { FromThread, ToThread } from '../shm/threads.ts';
import type { TokenAnswer, TokenTask } from '../shm/token-tasks.ts';

/**
 * Young generation of each thread's heap in MiB (V8 takes three times a semi-space, and grows into it
 * only as far as objects survive). Acceptor and scheduler: small, because hardly anything survives
 * there. Forwarder: room for all attempts in flight, a good 10 KiB each; what does not fit is promoted,
 * dies in the old generation and costs more memory and full collections. Measured with 384 in flight:
 * 6 to 12 MiB 234 to 278 MB in all, 24 to 48 MiB 230 to 233 MB with a quarter of the time in collections.
 */
const youngGenerationMb = {
  ...{ acceptor: 6, scheduler: 2, forwarder: 48, limiter: 6, ledger: 6, tracer: 6 },
} as const;

/** A worker is gone within 260 ms (RELIABILITY 0.3), on a machine that is too busy for that much later. */
const killMsMax = 10_000;

const hookedLimits = faultHooksModule && {
  maxOldGenerationSizeMb: faultHooksModule.hookedOldGenerationMb,
};

/** Source and build have the same tree, with another ending. */
const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';

export type ThreadFolder = keyof typeof youngGenerationMb;

export class ThreadHandle {
  readonly name: string;
  readonly #worker: Worker;
  readonly #exited: Promise<number>;
  #stopping = false;
  #killedMs = Number.POSITIVE_INFINITY;
  /** What the thread died of. */
  #error: unknown;

  /** `folder` is the thread's folder in src/; `onDeath` hears of an exit nobody asked for. */
  constructor(
    name: string,
    folder: ThreadFolder,
    workerData: unknown,
    onDeath: (name: string, error: unknown) => void,
  ) {
    this.name = name;
    this.#worker = new Worker(new URL(`../${folder}/main.${ending}`, import.meta.url), {
      workerData,
      name,
      resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb[folder], ...hookedLimits },
    });
    if (faultHooksModule !== undefined) {
      this.#worker.on('message', (message: FromThread) => {
        if (message.kind === 'terminate') this.kill('terminated at a stage');
      });
    }
    this.#worker.on('error', (reason) => {
      this.#error = reason;
    });
    // Not events.once: that rejects on 'error', and the death of the thread would go unheard.
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        if (!this.#stopping) onDeath(name, this.#error ?? new Error(`exit code ${code}`));
        resolve(code);
      });
    });
  }

  /** Resolves with the port of a listening thread (0 for others) once the thread serves. */
  async ready(): Promise<number> {
    const exited = this.#exited.then(() => {
      throw this.#error ?? new Error(`${this.name} ended before it was ready`);
    });
    const message = await Promise.race([this.#next('ready'), exited]);
    return message.kind === 'ready' ? (message.port ?? 0) : 0;
  }

  send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  /** Sends and waits until the thread says that it has applied the change. */
  async apply(message: Extract<ToThread, { kind: 'replica' | 'forget' }>): Promise<void> {
    const { row, epoch } = message.kind === 'replica' ? message.replica : message;
    const applied = this.#next('applied', (m) => m.row === row && m.epoch === epoch);
    this.send(message);
    await Promise.race([applied, this.#exited]);
  }

  applyKeys(keys: KeyTable): Promise<void> {
    return this.#tell({ kind: 'keys', keys }, 'keysApplied');
  }

  applyBudgets(budgets: readonly BudgetRow[]): Promise<void> {
    return this.#tell({ kind: 'budgets', budgets }, 'budgetsApplied');
  }

  applyModels(message: Extract<ToThread, { kind: 'names' | 'models' }>): Promise<void> {
    return this.#tell(message, 'modelsApplied');
  }

  /** Answers what the thread asks to be counted; `count` never rejects. */
  serveCounts(count: (task: TokenTask) => Promise<TokenAnswer>): void {
    this.#worker.on('message', (message: FromThread) => {
      if (message.kind !== 'count') return;
      const { ticket, task } = message;
      void count(task).then((answer) => this.send({ kind: 'counted', ticket, answer }));
    });
  }

  /** An acceptor closes its listening socket; resolves once it has. */
  async unlisten(): Promise<void> {
    const unlistened = this.#next('unlistened');
    this.send({ kind: 'unlisten' });
    await Promise.race([unlistened, this.#exited]);
  }

  /** It was ended long enough ago to be gone. */
  get isUnkillable(): boolean {
    return nowMs() - this.#killedMs > killMsMax;
  }

  /** Ends a thread that is beyond help; its death is heard like any other, with this reason. */
  kill(reason: string): void {
    this.#error ??= new Error(reason);
    this.#killedMs = Math.min(this.#killedMs, nowMs());
    void this.#worker.terminate();
  }

  /** Asks the thread to end; after the grace it is terminated, or (uWebSockets.js) left behind. */
  async stop(graceMs: number, mayTerminate: boolean): Promise<void> {
    this.#stopping = true;
    this.send({ kind: 'stop' });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        if (mayTerminate) void this.#worker.terminate();
        else resolve();
      }, graceMs);
    });
    await Promise.race([this.#exited, late]);
    clearTimeout(timer);
  }

  /** A thread that has ended instead goes by nothing any more. */
  async #tell(message: ToThread, answer: FromThread['kind']): Promise<void> {
    const applied = this.#next(answer);
    this.send(message);
    await Promise.race([applied, this.#exited]);
  }

  #next<K extends FromThread['kind']>(
    kind: K,
    matches: (message: Extract<FromThread, { kind: K }>) => boolean = () => true,
  ): Promise<Extract<FromThread, { kind: K }>> {
    return new Promise((resolve) => {
      const listener = (message: FromThread): void => {
        if (message.kind !== kind) return;
        const wanted = message as Extract<FromThread, { kind: K }>;
        if (!matches(wanted)) return;
        this.#worker.off('message', listener);
        resolve(wanted);
      };
      this.#worker.on('message', listener);
    });
  }
}
