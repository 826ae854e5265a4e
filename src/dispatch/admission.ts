/**
 * Admission: who is turned away at the door instead of failing inside. Pure functions.
 *
 *   too late    predicted wait for the first token > time left                        microseconds
 *   saturation  max(waiting / replicas / 5, KV tokens in use / (0.8 * KV tokens))     1 is full (GIE)
 *   shed        p = clamp((saturation - 0.8) / 0.4, 0, 1), priorities below 0 only
 *
 * A slope and not a cliff: at a threshold everybody is turned away together and comes back together.
 */
const waitingPerReplica = 5;
const kvTarget = 0.8;
const shedFrom = 0.8;
const shedSpan = 0.4;

export interface Pressure {
  readonly waiting: number;
  readonly replicas: number;
  readonly contextTokens: number;
  /** 0: not known. */
  readonly kvTokens: number;
}

function saturation({ waiting, replicas, contextTokens, kvTokens }: Pressure): number {
  if (replicas === 0) return Number.POSITIVE_INFINITY;
  const queue = waiting / replicas / waitingPerReplica;
  return kvTokens === 0 ? queue : Math.max(queue, contextTokens / (kvTarget * kvTokens));
}

/** For a request of a priority below 0. */
export function shedProbability(pressure: Pressure): number {
  return Math.min(1, Math.max(0, (saturation(pressure) - shedFrom) / shedSpan));
}
