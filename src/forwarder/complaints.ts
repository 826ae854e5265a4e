/**
 * Which complaints about replicas are due in the log. Pure; forwarder threads.
 *
 * One of the same replica about the same is not repeated within `quietMs`, and remembered for no longer.
 */
const quietMs = 10_000;

export class Complaints {
  readonly #toldMs = new Map<string, number>();

  /** `error` is the number of an entry of errors/. */
  isDue(replica: string, error: number, ms: number): boolean {
    for (const [told, since] of this.#toldMs) if (ms - since >= quietMs) this.#toldMs.delete(told);
    const complaint = `${error} ${replica}`;
    if (this.#toldMs.has(complaint)) return false;
    this.#toldMs.set(complaint, ms);
    return true;
  }
}
