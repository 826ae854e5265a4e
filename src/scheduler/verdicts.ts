/** What the outcome of an attempt says: of its replica, and of what is known of it. Pure. */
import { Ended, Verdict } from '../dispatch/decisions.ts';
import { errors } from '../errors/catalogue.ts';
import { Outcome } from '../shm/rings.layout.ts';

/** What an outcome says of its replica; that it is busy or a client gone says nothing. */
export function verdictOf(outcome: number): Verdict {
  if (isFailure(outcome)) return Verdict.bad;
  return outcome === Outcome.ok || outcome === Outcome.clientError ? Verdict.good : Verdict.none;
}

/** Who knows what the attempt came to. */
export function endedOf(outcome: number, error: number): Ended {
  if (outcome === Outcome.lost) return Ended.lost;
  const isClients = error === errors.CLIENT_GONE.number || error === errors.DEADLINE.number;
  return outcome === Outcome.cancelled && isClients ? Ended.left : Ended.told;
}

/** By the replica's doing. */
export function isFailure(outcome: number): boolean {
  return outcome === Outcome.dead || outcome === Outcome.slow || outcome === Outcome.truncated;
}
