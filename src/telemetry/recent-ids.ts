/** Ids seen lately, in bounded memory: of so many events back, and of no more than twice as many. Pure. */
export class RecentIds {
  readonly #max: number;
  #now = new Set<string>();
  #before = new Set<string>();

  constructor(max: number) {
    this.#max = max;
  }

  /** False: it is there already. */
  add(id: string): boolean {
    if (this.#now.has(id) || this.#before.has(id)) return false;
    if (this.#now.size === this.#max) {
      this.#before = this.#now;
      this.#now = new Set();
    }
    this.#now.add(id);
    return true;
  }
}
