/** What the harness of a brain keeps of its requests and decisions, and where a request may go. */
import { type Choice, filterNames } from '../../src/dispatch/choice.ts';
import type { ReplicaFacts } from '../../src/dispatch/replica-state.ts';

export interface Running {
  readonly attempt: number;
  readonly replica: number;
}

/** What a request that has not ended needs of a replica. */
export interface Wanted {
  readonly model: number;
  readonly adapter: number;
  readonly pin: number;
  /** If it waits, then for a replica, and not for others to go with or for another model. */
  readonly queues: boolean;
}

/** Of a request that the harness was not told of. */
export const anything: Wanted = { model: 0, adapter: 0, pin: -1, queues: false };

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

export function placedOf(slot: number, attempt: number, heldUs: number, choice: Choice): Placed {
  const { candidates, index, request } = choice;
  const { row, inFlight, pendingTokens, contextTokens } = candidates;
  const filtered = filterNames.map((name, reason) => [name, choice.filtered[reason]!] as const);
  return {
    ...{ slot, attempt, heldUs, replica: row[index]!, isBySession: choice.isBySession },
    ...{ promptTokens: request.promptTokens, outputTokens: request.outputTokens },
    seen: Array.from({ length: candidates.length }, (_, i) => ({
      ...{ row: row[i]!, inFlight: inFlight[i]!, pendingTokens: pendingTokens[i]! },
      contextTokens: contextTokens[i]!,
      matchedTokens: choice.isMatched ? request.matched[i]! : 0,
    })),
    filtered: Object.fromEntries(filtered.filter(([, count]) => count > 0)),
  };
}

export const hasAdapter = (facts: ReplicaFacts | undefined, adapter: number): boolean =>
  adapter === 0 || (((facts?.adapters?.[0] ?? 0) >>> (adapter - 1)) & 1) === 1;

/** The request, if it waits, waits for that replica, though perhaps for others as well. */
export function waitsFor(wanted: Wanted, row: number, facts: ReplicaFacts | undefined): boolean {
  if (!wanted.queues || wanted.model !== facts?.model) return false;
  return wanted.pin < 0 ? hasAdapter(facts, wanted.adapter) : wanted.pin === row;
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
