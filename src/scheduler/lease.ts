/** Generation and attempt as one number, as the slot table and the rings carry them. Pure. */
import { attemptBits } from '../shm/request-slots.layout.ts';

export const leaseFor = (generation: number, attempt: number): number =>
  (generation << attemptBits) | attempt;
