/** What the outcome of an attempt says of its replica. Pure. */
import { Verdict } from '../dispatch/decisions.ts';
import { Outcome } from '../shm/rings.layout.ts';

/** What an outcome says of its replica; that it is busy or a client gone says nothing. */
export function verdictOf(outcome: number): Verdict {
  if (isFailure(outcome)) return Verdict.bad;
  return outcome === Outcome.ok || outcome === Outcome.clientError ? Verdict.good : Verdict.none;
}

/** By the replica's doing. */
export function isFailure(outcome: number): boolean {
  return outcome === Outcome.dead || outcome === Outcome.slow || outcome === Outcome.truncated;
}
