/** The scheduler's end of limits that are shared with other gateways: leases, and questions to the limiter. */
import type { SharedLimits } from '../dispatch/leases.ts';
import { ThreadId } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { AskRingLayout } from '../shm/leases.layout.ts';
import { LeaseTable } from '../shm/leases.ts';
import { askRingCapacity, bellsOf } from '../shm/memory.ts';
import { SpscProducer } from '../shm/spsc-ring.ts';
import type { SchedulerStart } from '../shm/threads.ts';

export function sharedLimitsOf({ memory, sharedLimits }: SchedulerStart): SharedLimits | undefined {
  if (memory.sharedLimits === null || sharedLimits === null) return undefined;
  const { leases, asks } = memory.sharedLimits;
  const producer = new SpscProducer(AskRingLayout, asks, askRingCapacity);
  const control = new Int32Array(memory.control);
  const bell = bellsOf(memory.size)(ThreadId.limiter(memory.size));
  return {
    ...sharedLimits,
    rows: new LeaseTable(leases),
    ask(row) {
      const cell = producer.begin();
      // A row is in the ring once: it has room, unless schedulers die while nobody reads it.
      if (cell < 0) return false;
      producer.words[cell + producer.at.row] = row;
      producer.commit();
      ring(control, bell);
      return true;
    },
  };
}
