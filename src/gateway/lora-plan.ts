/**
 * Which replica loads which adapter, and what it gives up for it. Pure.
 *
 * An adapter that somebody waits for and no routable replica has is loaded at once: where a place is free,
 * else in the place of the one that was used longest ago and runs nothing. It is loaded on one more replica
 * where all that have it are full or left out, or somebody has waited for `patienceMs` all the same. An
 * adapter in use gives way only to who has waited so long and has no other place: it is drained first. What
 * somebody waits for is given up by nobody, nor what was just loaded and has not been reached yet.
 */

/** What a replica has on its shelf. */
export interface Shelf {
  /** It is active, healthy and of a weight above 0. */
  readonly isRoutable: boolean;
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
  const wanted = new Set(wants.map(({ adapter }) => adapter));
  const places = shelves.flatMap((shelf) => placesOf(shelf, wanted));
  const isFree = (shelf: S): boolean =>
    shelf.loading === undefined && !moves.some((move) => move.shelf === shelf);
  for (const { adapter, waitedMs, only } of [...wants].sort((a, b) => b.waitedMs - a.waitedMs)) {
    const among = (only === undefined ? shelves : [only]).filter(({ isRoutable }) => isRoutable);
    const has = ({ kept, loaded }: S): boolean => kept.includes(adapter) || loaded.has(adapter);
    const comes = ({ loading }: S): boolean => loading === adapter;
    if (among.some(comes) || moves.some((move) => move.adapter === adapter)) continue;
    const holders = among.filter(has);
    const isPatient = waitedMs >= patienceMs;
    if (holders.some(({ hasRoom }) => hasRoom) && !isPatient) continue;
    const able = among
      .filter((shelf) => shelf.isKnown && isFree(shelf) && !has(shelf) && !shelf.isFailing(adapter))
      .sort((a, b) => a.load - b.load || a.loaded.size - b.loaded.size);
    const roomy = able.find(({ loaded }) => loaded.size < maxLoaded);
    if (roomy !== undefined) {
      moves.push({ shelf: roomy, adapter, evicted: undefined });
      continue;
    }
    if (holders.length > 0 && !isPatient) continue;
    const mayDrain = isPatient && holders.length === 0;
    const place = oldest(places, (p) => able.includes(p.shelf), mayDrain);
    if (place !== undefined) moves.push({ shelf: place.shelf, adapter, evicted: place.evicted });
  }
  return moves;
}

function placesOf<S extends Shelf>(shelf: S, wanted: ReadonlySet<string>): Place<S>[] {
  return [...shelf.loaded]
    .filter((adapter) => !wanted.has(adapter) && !shelf.isNew(adapter))
    .map((evicted) => ({
      ...{ shelf, evicted },
      idleMs: shelf.idleMs(evicted),
      isUsed: shelf.isUsed(evicted),
    }));
}

/** The adapter that was used longest ago: one that runs nothing, else, where it may be drained, any. */
function oldest<S>(
  all: readonly Place<S>[],
  isOpen: (place: Place<S>) => boolean,
  mayDrain: boolean,
): Place<S> | undefined {
  const places = all.filter(isOpen);
  const idle = places.filter(({ isUsed }) => !isUsed);
  const open = idle.length > 0 || !mayDrain ? idle : places;
  return open.sort((a, b) => b.idleMs - a.idleMs)[0];
}
