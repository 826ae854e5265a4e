/** A broken invariant of our own. Never thrown for anything that came over the network. */
export class InvariantError extends Error {
  override name = 'InvariantError';
}

/** Asserts that `condition` holds; the message names the invariant, not the symptom. */
export function assert(condition: boolean, message = 'invariant broken'): asserts condition {
  if (!condition) throw new InvariantError(message);
}
