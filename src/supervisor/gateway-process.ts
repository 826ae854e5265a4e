/**
 * One gateway process as the supervisor sees it: started, told, signalled, ended. Supervisor process.
 *
 * It runs in a process group of its own: a Ctrl-C reaches it once, through the supervisor.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { ExitCode } from '../lib/exit-code.ts';
import {
  type Beside,
  besideVariable,
  type FromSupervisor,
  type ToSupervisor,
} from '../lib/process-messages.ts';

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ProcessEvents {
  ready(process: GatewayProcess): void;
  /** It ends as soon as the clients it has are served, `drainMs` from now at the latest. */
  leaving(process: GatewayProcess, drainMs: number): void;
  /** It was asked for a restart. */
  restart(): void;
  ended(process: GatewayProcess, ending: Ending): void;
}

export type Ready = Extract<ToSupervisor, { kind: 'ready' }>;

export class GatewayProcess {
  readonly startedMs = performance.now();
  /** What it said when it came to serve; undefined before. */
  ready: Ready | undefined;
  /** Undefined: it could not be started. */
  readonly #child: ChildProcess | undefined;
  #wantsReload = false;
  #limit: NodeJS.Timeout | undefined;

  /** `beside`: what another one said that serves. `isAlone`: no other one lives, be it to leave. One that cannot be started ends, in a later turn. */
  constructor(
    args: readonly string[],
    beside: Ready | undefined,
    isAlone: boolean,
    events: ProcessEvents,
  ) {
    let isOver = false;
    const end = (ending: Ending): void => {
      if (isOver) return;
      isOver = true;
      clearTimeout(this.#limit);
      events.ended(this, ending);
    };
    const failed = (): void => end({ code: ExitCode.failed, signal: null });
    try {
      this.#child = start(args, beside, !isAlone);
    } catch {
      // Thrown and not told: no memory, a table of processes that is full.
      setImmediate(failed);
      return;
    }
    this.#child.once('error', failed);
    this.#child.once('exit', (code, signal) => end({ code, signal }));
    this.#child.on('message', (message: ToSupervisor) => {
      if (message.kind === 'restart') events.restart();
      if (message.kind === 'leaving') events.leaving(this, message.drainMs);
      if (message.kind !== 'ready' || this.ready !== undefined) return;
      this.ready = message;
      if (this.#wantsReload) this.kill('SIGHUP');
      events.ready(this);
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** The signal kills a process that does not listen for it yet, so it waits until it serves. */
  reload(): void {
    if (this.ready === undefined) this.#wantsReload = true;
    else this.kill('SIGHUP');
  }

  tell(message: FromSupervisor): void {
    // One that is gone has no use for it.
    if (this.#child?.connected) this.#child.send(message, () => {});
  }

  /** Calls `late` unless within the time it ends, or another limit or none is set. */
  limit(ms: number, late: () => void): void {
    clearTimeout(this.#limit);
    this.#limit = setTimeout(late, ms);
  }

  unlimited(): void {
    clearTimeout(this.#limit);
  }
}

function start(
  args: readonly string[],
  beside: Ready | undefined,
  sharesFiles: boolean,
): ChildProcess {
  const program = process.argv[1] as string;
  const role = beside === undefined ? 'alone' : 'beside';
  const known: Beside = { listen: beside?.listen, admin: beside?.admin, sharesFiles };
  return spawn(
    process.execPath,
    [...process.execArgv, program, ...args, '--no-supervisor', '--child', role],
    {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      detached: true,
      env: { ...process.env, [besideVariable]: JSON.stringify(known) },
    },
  );
}
