/**
 * `x-sluice-explain`: in one line, why the answer comes from its replica. Acceptor threads.
 *
 * In flight, pending and matched are those of the replica, before this request was counted. The whole
 * record is on the admin port (gateway/explain.ts).
 */
import { Chooser } from '../shm/explain.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

const explainHeader = 'x-sluice-explain';

/** Adds the header for a client that asked for it. */
export function pushExplanation(
  state: AcceptorState,
  { facts, slot }: Request,
  headers: string[],
): void {
  if (facts.wantsExplain) headers.push(explainHeader, explainText(state, slot));
}

/** The value for the attempt that the slot holds. */
function explainText({ slots, explain, start }: AcceptorState, slot: number): string {
  const { explain: ofFirst, hedgeExplain } = slots.at;
  const field = slots.isHedgeAlone(slot) ? hedgeExplain : ofFirst;
  const stamp = slots.words[slots.row(slot) + field] as number;
  const explained = explain.read(stamp);
  // More requests than the ring has records came since, or somebody reads this one right now.
  if (explained === undefined) return 'not recorded';
  const { model, replica, chosenBy, candidates, heldUs, listed } = explained;
  const names = { [Chooser.session]: 'session', [Chooser.pin]: 'pin' } as const;
  const policy = names[chosenBy as keyof typeof names] ?? start.models[model]?.policy ?? '';
  const chosen = listed.find(({ row }) => row === replica);
  return [
    `policy=${policy}`,
    `candidates=${candidates}`,
    `in_flight=${chosen?.inFlight ?? 0}`,
    `pending=${chosen?.pendingTokens ?? 0}`,
    `matched=${chosen?.matchedTokens ?? 0}`,
    `queue=${Math.round(heldUs / 1000)}ms`,
  ].join('; ');
}
