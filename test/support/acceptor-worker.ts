/**
 * An acceptor thread with what a test may do to it: fail at a named stage, lose wake-ups, spin.
 * Everything else is the shipped src/acceptor/main.ts.
 */
import { parentPort } from 'node:worker_threads';
import { type FaultStage, setFaultHook } from '../../src/lib/fault-point.ts';
import { faultHooksModule } from '../../src/shm/fault-hooks-loader.ts';

export type ToAcceptorWorker =
  | { readonly kind: 'fail-at'; readonly stage: FaultStage; readonly count: number }
  | { readonly kind: 'lose-notify'; readonly every: number };

const faults = new Map<FaultStage, number>();

parentPort?.on('message', (message: ToAcceptorWorker) => {
  if (message.kind === 'fail-at') faults.set(message.stage, message.count);
  if (message.kind === 'lose-notify') loseNotifications(message.every);
});

function loseNotifications(every: number): void {
  const notify = Atomics.notify;
  let calls = 0;
  Atomics.notify = ((...args: Parameters<typeof notify>): number => {
    calls++;
    return calls % every === 0 ? 0 : notify(...args);
  }) as typeof notify;
}

await import('../../src/acceptor/main.ts');

// In the place of the product's own hook, and as unreachable without the flag.
if (faultHooksModule !== undefined) {
  setFaultHook((stage) => {
    const left = faults.get(stage) ?? 0;
    if (left === 0) return;
    faults.set(stage, left - 1);
    throw new Error(`injected fault: ${stage}`);
  });
}
