/**
 * POST /admin/fault of a gateway under test: reads what a test wants done to a thread. Main thread;
 * imported only with the fault hooks (shm/fault-hooks-loader.ts).
 */
import { z } from 'zod';
import { type FaultStage, faultStages } from '../lib/fault-point.ts';
import { faultHooksModule } from '../shm/fault-hooks-loader.ts';
import type { Fault } from '../shm/threads.ts';
import { AdminError } from './admin-server.ts';
import type { GatewayThreads } from './gateway-threads.ts';

const thread = z.string();
const ms = z.number().min(-1e9).max(60_000);
const stages = Object.values(faultStages).flat() as [FaultStage, ...FaultStage[]];

const faultSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('stall'), thread, ms }),
  z.strictObject({ kind: z.literal('cpuHog'), thread, ms }),
  z.strictObject({
    kind: z.literal('crash'),
    thread,
    stage: z.enum(stages),
    how: z.enum(['throw', 'exit', 'oom', 'terminate']),
    after: z.int().min(0).prefault(0),
  }),
  z.strictObject({
    kind: z.literal('ringFull'),
    thread,
    ring: z.enum(['request', 'dispatch', 'reply', 'response']),
    ms,
  }),
  z.strictObject({ kind: z.literal('loseWakeup'), thread, every: z.int().min(0) }),
  z.strictObject({ kind: z.literal('clockSkew'), thread, ms }),
]);

const ownHooks = faultHooksModule && new faultHooksModule.FaultHooks(() => process.abort());

/** A fault of the main thread is applied once the answer is out. */
export function applyFault(body: unknown, threads: GatewayThreads): unknown {
  const parsed = faultSchema.safeParse(body);
  if (!parsed.success) throw new AdminError(400, z.prettifyError(parsed.error));
  const fault: Fault = parsed.data;
  if (fault.thread === 'main') setTimeout(() => ownHooks?.apply(fault), 10);
  else if (!threads.send(fault.thread, { kind: 'fault', fault })) {
    throw new AdminError(404, `no thread ${fault.thread}`);
  }
  return fault;
}
