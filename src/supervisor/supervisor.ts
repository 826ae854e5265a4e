/**
 * The supervisor process: starts the gateway process, starts it again when it dies, passes signals on.
 *
 * It holds no socket and no state, so that nothing in the gateway can harm it. The gateway runs in a
 * process group of its own: a Ctrl-C reaches it once, through here. Should the supervisor die, the
 * gateway sees its IPC channel close and drains.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { ExitCode } from '../lib/exit-code.ts';

export interface SupervisorOptions {
  /** Arguments of the gateway process after the program, as `serve --no-supervisor …`. */
  readonly args: readonly string[];
  readonly say: (text: string) => void;
}

const backoffMsMin = 100;
const backoffMsMax = 10_000;
/** A gateway that served this long was well: the next death starts the back-off anew. */
const steadyMs = 60_000;
const stopSignals = ['SIGTERM', 'SIGINT'] as const;

/** Wait before start number `deaths + 1` in a row: 0.1, 0.2, 0.4 … 10 s. */
export function backoffMs(deaths: number): number {
  return Math.min(backoffMsMax, backoffMsMin * 2 ** Math.max(0, deaths - 1));
}

/** Runs until the gateway ends by request or never comes to serve; resolves with the exit code. */
export async function supervise({ args, say }: SupervisorOptions): Promise<number> {
  let child: ChildProcess | undefined;
  let isServing = false;
  let wantsReload = false;
  let stopping = false;
  let wake: () => void = () => {};
  const onStop = (signal: NodeJS.Signals): void => {
    stopping = true;
    child?.kill(signal);
    wake();
  };
  // It kills a process that does not listen for it yet, so it waits for the ready message.
  const onReload = (): void => {
    wantsReload = !isServing;
    if (isServing) child?.kill('SIGHUP');
  };
  for (const signal of stopSignals) process.on(signal, onStop);
  process.on('SIGHUP', onReload);
  try {
    let deaths = 0;
    let served = false;
    for (;;) {
      const started = performance.now();
      child = start(args);
      child.once('message', () => {
        served = true;
        isServing = true;
        if (wantsReload) onReload();
      });
      const { code, signal } = await ended(child);
      const hasServed = isServing;
      child = undefined;
      isServing = false;
      // Asked to stop before it served: it has, whether or not it could hear of it.
      if (stopping && !hasServed) return ExitCode.ok;
      // One that never served has said why. After that everything is tried again, also a config that
      // went bad meanwhile: whoever mends the file has the service back.
      if (stopping || code === ExitCode.ok || !served) return code ?? ExitCode.failed;
      if (performance.now() - started > steadyMs) deaths = 0;
      deaths++;
      const wait = backoffMs(deaths);
      say(
        `the gateway process ended (${signal ?? `exit ${code}`}); starting it again in ${wait} ms`,
      );
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (stopping) return ExitCode.ok;
    }
  } finally {
    for (const signal of stopSignals) process.off(signal, onStop);
    process.off('SIGHUP', onReload);
  }
}

function start(args: readonly string[]): ChildProcess {
  const program = process.argv[1] as string;
  return spawn(process.execPath, [...process.execArgv, program, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    detached: true,
  });
}

function ended(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  return new Promise((resolve) => {
    child.once('error', () => resolve({ code: ExitCode.failed, signal: null }));
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
}
