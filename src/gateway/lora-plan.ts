/**
 * Which replica loads which adapter, and what it gives up for it. Pure.
 *
 * An adapter that somebody waits for and no routable replica has is loaded at once: where a place is free,
 * else in the place of the one that was used longest ago and runs nothing. Where all that have it are full,
 * or leave their waiters waiting, it is loaded on one more replica with a free place. Adapters in use give
 * way only to somebody who has waited for `patienceMs`: they are drained first. What was just loaded is
 * not given up before its requests have had the time to reach it.
 */

/** What a replica has on its shelf. */
export interface Shelf {
  /** It takes requests: active, healthy, of a weight above 0. */
  readonly isRoutable: boolean;
  /** It takes no more at the moment. */
  readonly isFull: boolean;
  /** Share of the requests it takes that it has. */
  readonly load: number;
  /** It has these whatever happens. */
  readonly kept: readonly string[];
  /** Those that were loaded. */
  readonly loaded: ReadonlySet<string>;
  /** What it loads at this moment; it does one thing at a time. */
  readonly loading: string | undefined;
  /** It could not load it lately. */
  isFailing(adapter: string): boolean;
  /** It was loaded just now, and those that wait for it have not come yet. */
  isNew(adapter: string): boolean;
  /** Attempts it was given since the adapter was used. */
  age(adapter: string): number;
  /** Its requests run there. */
  isUsed(adapter: string): boolean;
}

export interface Want {
  readonly adapter: string;
  /** How long its first waiter has waited, in milliseconds. */
  readonly waitedMs: number;
}

export interface Move<S> {
  readonly shelf: S;
  readonly adapter: string;
  /** Given up for it. */
  readonly evicted: string | undefined;
}

/** Waits of this length are no passing shortage. */
export const patienceMs = 1000;

/** Who has waited longest is served first; each replica has at most one move. */
export function planLoads<S extends Shelf>(
  wants: readonly Want[],
  shelves: readonly S[],
  maxLoaded: number,
): Move<S>[] {
  const moves: Move<S>[] = [];
  const isFree = (shelf: S): boolean =>
    shelf.loading === undefined && !moves.some((move) => move.shelf === shelf);
  for (const { adapter, waitedMs } of [...wants].sort((a, b) => b.waitedMs - a.waitedMs)) {
    if (shelves.some(({ loading }) => loading === adapter)) continue;
    const has = ({ kept, loaded }: S): boolean => kept.includes(adapter) || loaded.has(adapter);
    const holders = shelves.filter((shelf) => shelf.isRoutable && has(shelf));
    const isPatient = waitedMs >= patienceMs;
    if (holders.some(({ isFull }) => !isFull) && !isPatient) continue;
    const able = shelves
      .filter((shelf) => shelf.isRoutable && isFree(shelf) && !has(shelf))
      .filter((shelf) => !shelf.isFailing(adapter))
      .sort((a, b) => a.load - b.load || a.loaded.size - b.loaded.size);
    const roomy = able.find(({ loaded }) => loaded.size < maxLoaded);
    if (roomy !== undefined) moves.push({ shelf: roomy, adapter, evicted: undefined });
    else if (holders.length === 0) {
      const place = oldestPlace(able, isPatient);
      if (place !== undefined) moves.push({ ...place, adapter });
    }
  }
  return moves;
}

/** The adapter that was used longest ago: one that runs nothing, else, for the patient, any. */
function oldestPlace<S extends Shelf>(shelves: readonly S[], isPatient: boolean) {
  const places = shelves.flatMap((shelf) =>
    [...shelf.loaded]
      .filter((adapter) => !shelf.isNew(adapter))
      .map((evicted) => ({
        ...{ shelf, evicted },
        age: shelf.age(evicted),
        isUsed: shelf.isUsed(evicted),
      })),
  );
  const idle = places.filter(({ isUsed }) => !isUsed);
  const [oldest] = (idle.length > 0 || !isPatient ? idle : places).sort((a, b) => b.age - a.age);
  return oldest && { shelf: oldest.shelf, evicted: oldest.evicted };
}
