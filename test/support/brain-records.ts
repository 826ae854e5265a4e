/** What the harness of a brain keeps of its decisions, and where a request may go. */
import type { ReplicaFacts } from '../../src/dispatch/replica-state.ts';

export interface Running {
  readonly attempt: number;
  readonly replica: number;
}

/** What a request was placed on, copied while it was so. */
export interface Placed {
  readonly slot: number;
  readonly attempt: number;
  readonly heldUs: number;
  readonly replica: number;
  readonly isBySession: boolean;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly seen: readonly {
    readonly row: number;
    readonly inFlight: number;
    readonly pendingTokens: number;
    readonly contextTokens: number;
    readonly matchedTokens: number;
  }[];
  /** Reasons with a count above 0. */
  readonly filtered: Readonly<Record<string, number>>;
}

export const isRoutable = (facts: ReplicaFacts | undefined): boolean =>
  facts?.active === true && facts.weight > 0;

/** `pinned`: the replica that a request is pinned to, which may have another row; undefined: none. */
export function mayServe(
  facts: ReplicaFacts | undefined,
  pinned: ReplicaFacts | undefined,
): boolean {
  if (facts?.healthy !== true) return false;
  if (pinned === undefined) return isRoutable(facts);
  return pinned.identity === facts.identity && (facts.active || facts.draining === true);
}
