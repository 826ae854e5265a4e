/** Makes a part of a workload arrive `factor` times as fast; what follows comes that much sooner. Pure. */
import { assert } from '../../lib/assert.ts';
import type { Workload } from '../workload.ts';

/** The burst begins at `fromUs` and lasts `durationUs`, in the new time. */
export function withBurst(
  workload: Workload,
  fromUs: number,
  durationUs: number,
  factor: number,
): Workload {
  assert(factor >= 1 && durationUs >= 0);
  const compressedUs = durationUs * factor;
  const arrivalUs = workload.arrivalUs.map((us) => {
    const within = Math.min(Math.max(0, us - fromUs), compressedUs);
    return Math.round(us - within + within / factor);
  });
  return { ...workload, arrivalUs };
}
