/**
 * Stages of an overload: what the gateway gives up, step by step, as memory or descriptors run out. Pure.
 *
 *   share = used / limit      a stage begins when it is reached, and each includes those before it
 *
 * A stage is left once the share is `leaveGap` below where it began, so that a share that wavers about a
 * threshold changes nothing. The first two for memory are where Envoy's overload manager has its own.
 */
import { OverloadAction } from '../shm/control.layout.ts';

/** By their number. */
export const overloadStages = [
  'none',
  'keep_alive_off',
  'refuse_requests',
  'cut_slow_readers',
  'refuse_connections',
] as const;
export type OverloadStage = (typeof overloadStages)[number];

interface Rung {
  readonly stage: OverloadStage;
  /** Share at which it begins. */
  readonly from: number;
  readonly action: OverloadAction;
}

/** From the first to the last. */
export type Ladder = readonly Rung[];

const { keepAliveOff, refuseRequests, cutSlowReaders, refuseConnections } = OverloadAction;

export const memoryLadder: Ladder = [
  { stage: 'keep_alive_off', from: 0.85, action: keepAliveOff },
  { stage: 'refuse_requests', from: 0.92, action: refuseRequests },
  { stage: 'cut_slow_readers', from: 0.95, action: cutSlowReaders },
  { stage: 'refuse_connections', from: 0.97, action: refuseConnections },
];

/** No request needs a descriptor of its own but by its connection. */
export const descriptorLadder: Ladder = [
  { stage: 'keep_alive_off', from: 0.9, action: keepAliveOff },
  // A limit that the caps of the config just fit is used up to 128 descriptors (descriptors.ts).
  { stage: 'refuse_connections', from: 0.98, action: refuseConnections },
];

const leaveGap = 0.03;

/** How many rungs are reached, coming from `before` of them. */
export function rungsAfter(ladder: Ladder, before: number, share: number): number {
  let reached = 0;
  for (const [index, { from }] of ladder.entries()) {
    const isIn = index < before;
    if (share >= (isIn ? from - leaveGap : from)) reached = index + 1;
  }
  return reached;
}

/** OverloadAction bits of so many rungs. */
export const actionsOf = (ladder: Ladder, rungs: number): number =>
  ladder.slice(0, rungs).reduce((bits, { action }) => bits | action, 0);

export const stageOf = (ladder: Ladder, rungs: number): OverloadStage =>
  ladder[rungs - 1]?.stage ?? 'none';
