/**
 * Items of several owners that wait for their turn: the owners take turns, the items of one come in their order.
 * Pure. Who has a bound takes one out of the longest row (`dropOf`): whoever floods it loses only its own.
 */

export class Turns<T> {
  /** The owner whose turn is next comes first. No row is empty. */
  readonly #rows = new Map<number, T[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(owner: number, item: T): void {
    const row = this.#rows.get(owner);
    if (row === undefined) this.#rows.set(owner, [item]);
    else row.push(item);
    this.#size++;
  }

  /** Takes out whose turn it is; undefined: nobody waits. */
  next(): T | undefined {
    for (const [owner, row] of this.#rows) {
      const item = row.shift();
      this.#rows.delete(owner);
      if (row.length > 0) this.#rows.set(owner, row);
      this.#size--;
      return item;
    }
    return undefined;
  }

  /** Takes out the last item of the longest row, of that of `owner` where it is among them. */
  dropOf(owner: number): T | undefined {
    let longest = this.#rows.get(owner);
    let from = owner;
    for (const [other, row] of this.#rows) {
      if (row.length <= (longest?.length ?? 0)) continue;
      longest = row;
      from = other;
    }
    const item = longest?.at(-1);
    if (item !== undefined) this.remove(from, item);
    return item;
  }

  remove(owner: number, item: T): void {
    const row = this.#rows.get(owner);
    const at = row?.lastIndexOf(item) ?? -1;
    if (row === undefined || at < 0) return;
    row.splice(at, 1);
    if (row.length === 0) this.#rows.delete(owner);
    this.#size--;
  }
}
