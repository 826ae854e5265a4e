/**
 * Which replica loads which adapter, and what it gives up for it. Pure.
 *
 * An adapter that somebody waits for and no routable replica has is loaded at once: where a place is free,
 * else in the place of the one that was used longest ago and runs nothing. It is loaded on one more replica
 * that has room where all that have it are full or left out, or somebody has waited for `patienceMs` all the
 * same. An adapter in use gives way only to who has waited so long and has no other place: it is drained
 * first. One that somebody waits for gives way only to who has waited longer, and what was just loaded to
 * nobody before it was reached.
 */

/** What a replica has on its shelf. */
export interface Shelf {
  /** It is active, healthy and of a weight above 0. */
  readonly isRoutable: boolean;
  /** It serves what it alone can serve. */
  readonly isReachable: boolean;
  /** It would be given a request now, by what this thread knows. */
  readonly hasRoom: boolean;
  /** Share of the requests it takes that it has. */
  readonly load: number;
  /** What it has loaded has been asked for. */
  readonly isKnown: boolean;
  /** It has these whatever happens. */
  readonly kept: readonly string[];
  readonly loaded: ReadonlySet<string>;
  /** What it loads at this moment; it does one thing at a time. */
  readonly loading: string | undefined;
  /** Adapters in use may be drained there: none has taken too long lately. */
  readonly mayDrain: boolean;
  /** It could not load it lately. */
  isFailing(adapter: string): boolean;
  /** It was loaded just now, and those that wait for it have not come yet. */
  isNew(adapter: string): boolean;
  /** Milliseconds since it was used, or loaded. */
  idleMs(adapter: string): number;
  /** Its requests run there. */
  isUsed(adapter: string): boolean;
}

export interface Want<S> {
  readonly adapter: string;
  /** How long it has been waited for, in milliseconds. */
  readonly waitedMs: number;
  /** The replica that alone can serve who waits; undefined: any can. */
  readonly only: S | undefined;
}

export interface Move<S> {
  readonly shelf: S;
  readonly adapter: string;
  /** Given up for it. */
  readonly evicted: string | undefined;
}

/** A place that an adapter has. */
interface Place<S> {
  readonly shelf: S;
  readonly evicted: string;
  readonly idleMs: number;
  readonly isUsed: boolean;
}

/** Waits of this length are no passing shortage. */
export const patienceMs = 1000;

/** Who has waited longest is served first; each replica has at most one move. */
export function planLoads<S extends Shelf>(
  wants: readonly Want<S>[],
  shelves: readonly S[],
  maxLoaded: number,
): Move<S>[] {
  const moves: Move<S>[] = [];
  const waits = new Map<string, number>();
  for (const { adapter, waitedMs } of wants) {
    waits.set(adapter, Math.max(waitedMs, waits.get(adapter) ?? 0));
  }
  let places: readonly Place<S>[] | undefined;
  const isFree = (shelf: S): boolean =>
    shelf.loading === undefined && !moves.some((move) => move.shelf === shelf);
  for (const { adapter, waitedMs, only } of [...wants].sort((a, b) => b.waitedMs - a.waitedMs)) {
    const among =
      only === undefined
        ? shelves.filter(({ isRoutable }) => isRoutable)
        : [only].filter(({ isReachable }) => isReachable);
    const has = ({ kept, loaded }: S): boolean => kept.includes(adapter) || loaded.has(adapter);
    const comes = ({ loading }: S): boolean => loading === adapter;
    if (among.some(comes) || moves.some((move) => move.adapter === adapter)) continue;
    const holders = among.filter(has);
    const isPatient = waitedMs >= patienceMs;
    if (holders.some(({ hasRoom }) => hasRoom) && !isPatient) continue;
    const able = among
      .filter((shelf) => shelf.isKnown && isFree(shelf) && !has(shelf) && !shelf.isFailing(adapter))
      .filter(({ hasRoom }) => hasRoom || holders.length === 0)
      .sort((a, b) => a.load - b.load || a.loaded.size - b.loaded.size);
    const roomy = able.find(({ loaded }) => loaded.size < maxLoaded);
    if (roomy !== undefined) {
      moves.push({ shelf: roomy, adapter, evicted: undefined });
      continue;
    }
    if (able.length === 0 || (holders.length > 0 && !isPatient)) continue;
    places ??= shelves.flatMap(placesOf);
    const mayDrain = isPatient && holders.length === 0;
    const place = oldest(places, mayDrain, ({ shelf, evicted }) => {
      const ownMs = waits.get(evicted);
      const isWanted = ownMs !== undefined && (!isPatient || ownMs >= waitedMs);
      return able.includes(shelf) && !isWanted;
    });
    if (place !== undefined) moves.push({ shelf: place.shelf, adapter, evicted: place.evicted });
  }
  return moves;
}

function placesOf<S extends Shelf>(shelf: S): Place<S>[] {
  return [...shelf.loaded]
    .filter((adapter) => !shelf.isNew(adapter))
    .map((evicted) => ({
      ...{ shelf, evicted },
      idleMs: shelf.idleMs(evicted),
      isUsed: shelf.isUsed(evicted),
    }));
}

/** The adapter that was used longest ago: one that runs nothing, else, where it may be drained, any. */
function oldest<S extends Shelf>(
  all: readonly Place<S>[],
  mayDrain: boolean,
  isOpen: (place: Place<S>) => boolean,
): Place<S> | undefined {
  const places = all.filter(isOpen);
  const idle = places.filter(({ isUsed }) => !isUsed);
  const open = idle.length > 0 || !mayDrain ? idle : places.filter(({ shelf }) => shelf.mayDrain);
  return open.sort((a, b) => b.idleMs - a.idleMs)[0];
}
