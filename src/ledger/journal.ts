/**
 * One acceptor's usage files as a log that several readers follow, each at its own pace. Ledger thread.
 *
 * A segment is a file, known by its first bytes (the id of its first event): it keeps them when it is
 * renamed, and an inode number may come again. The reader `tally` goes first and counts the lines of each
 * segment; the others read up to where it is. So what a reader has before it is a number, and so is what
 * it has lost when a file is deleted before it was read.
 * A line without an end is not there yet. Bounded: one chunk in memory and one open file per reader, while it reads.
 *
 * A segment that is shorter than a reader has come has lost its end, as in a power failure: readers go on
 * behind the last whole line that is left. A renamed file that cannot be opened is passed over for good,
 * like one that is gone; the one that is written is waited for. No file at all is no news: a folder may be
 * mounted late.
 */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  beginning,
  type Chunk,
  type Cursor,
  endOf,
  headBytes,
  ignoreMissing,
  nextLines,
  type OpenSegment,
  openSegment,
} from './segment.ts';

interface Segment {
  readonly head: string;
  readonly path: string;
  /** As far as the tally has come. */
  lines: number;
}
export interface SavedJournal {
  readonly segments: readonly { readonly head: string; readonly lines: number }[];
  readonly cursors: Readonly<Record<string, Cursor>>;
}
interface Reader {
  cursor: Cursor;
  /** Of the file that was read last. */
  inode: number;
  /** There was nothing more when it was last asked. */
  isAtEnd: boolean;
}
interface Found {
  readonly head: string;
  readonly path: string;
  readonly size: number;
}

export const tally = 'tally';
/** A process that leaves may still write a last time to a file that another has renamed. */
const restMs = 1000;

export interface JournalParts {
  readonly path: string;
  readonly saved: SavedJournal | undefined;
  /** Of its readers, without the tally. */
  readonly names: readonly string[];
  /** Lines that the tally has read and the reader never will. */
  onLost(reader: string, lines: number): void;
  /** Told once of each name of a renamed file that cannot be opened. */
  onPassedOver(path: string, error: unknown): void;
}

export class Journal {
  readonly #parts: JournalParts;
  /** The oldest first. */
  #segments: Segment[];
  readonly #readers: Map<string, Reader>;
  /** Heads of the segments that the tally has read from since they were last on the disk for sure. */
  readonly #unsynced = new Set<string>();
  readonly #passedOver = new Set<string>();
  #looking: Promise<void> | undefined;

  constructor(parts: JournalParts) {
    this.#parts = parts;
    const { saved, names } = parts;
    this.#segments = (saved?.segments ?? []).map((segment) => ({ ...segment, path: '' }));
    const first = { ...beginning, head: this.#segments[0]?.head ?? '' };
    const reader = (name: string): [string, Reader] => {
      const cursor = saved?.cursors[name] ?? first;
      return [name, { cursor, inode: -1, isAtEnd: false }];
    };
    this.#readers = new Map([tally, ...names].map(reader));
  }

  get path(): string {
    return this.#parts.path;
  }

  get saved(): SavedJournal {
    const cursors = [...this.#readers].map(([name, { cursor }]) => [name, cursor]);
    return {
      segments: this.#segments.map(({ head, lines }) => ({ head, lines })),
      cursors: Object.fromEntries(cursors),
    };
  }

  /** Lines that the tally has read and the reader has not. */
  waiting(name: string): number {
    const { cursor } = this.#reader(name);
    const at = this.#indexOf(cursor.head);
    const lines = this.#segments.slice(Math.max(at, 0)).reduce((sum, each) => sum + each.lines, 0);
    return Math.max(0, lines - cursor.lines);
  }

  /**
   * What comes next for the reader; undefined: nothing does. Empty lines are left out. Rejects when the
   * files cannot be read.
   */
  async read(name: string): Promise<Chunk | undefined> {
    const reader = this.#reader(name);
    let mayBeMore = name === tally ? await this.#hasNews(reader) : this.waiting(name) > 0;
    while (mayBeMore) {
      const file = await this.#open(reader);
      if (file === undefined) break;
      try {
        const { cursor } = reader;
        const limit = this.#limitOf(name, file, cursor);
        const chunk = await nextLines(file.handle, cursor, limit);
        if (chunk !== undefined) {
          reader.isAtEnd = false;
          return chunk;
        }
        mayBeMore = await this.#advance(name, reader, file, limit);
      } finally {
        await file.handle.close();
      }
    }
    reader.isAtEnd = true;
    return undefined;
  }

  /** The reader goes on behind the chunk, unless it was moved meanwhile. */
  commit(name: string, { from, to }: Chunk): void {
    const reader = this.#reader(name);
    if (reader.cursor.head !== from.head || reader.cursor.offset !== from.offset) return;
    reader.cursor = to;
    if (name !== tally) return;
    this.#unsynced.add(to.head);
    const segment = this.#segments[this.#indexOf(to.head)];
    if (segment !== undefined) segment.lines = to.lines;
  }

  /**
   * Resolves once what the tally has read is on the disk: a cursor that outlives a power failure must not
   * be ahead of its file. Rejects when that is not known.
   */
  async sync(): Promise<void> {
    for (const head of this.#unsynced) {
      const file = await this.#openHead(() => head);
      try {
        await file?.handle.datasync();
      } finally {
        await file?.handle.close();
      }
      this.#unsynced.delete(head); // one that is gone has no cursor either
    }
  }

  /** Looks for files that came, were renamed or went; what readers lose with the latter is told. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  #reader(name: string): Reader {
    return this.#readers.get(name) as Reader;
  }

  #indexOf(head: string): number {
    return this.#segments.findIndex((segment) => segment.head === head);
  }

  /** Whether there may be more for the tally; looks at the files where another one is written. */
  async #hasNews({ cursor, isAtEnd, inode }: Reader): Promise<boolean> {
    const at = this.#indexOf(cursor.head);
    if (at >= 0 && at < this.#segments.length - 1) return true;
    const there = await stat(this.path).catch(ignoreMissing);
    if (there === undefined || there.size < headBytes) return !isAtEnd;
    if (there.ino === inode) return !isAtEnd || there.size !== cursor.offset;
    await this.look();
    return true;
  }

  /** The file of the segment that the reader is in. */
  async #open(reader: Reader): Promise<OpenSegment | undefined> {
    const file = await this.#openHead(() => reader.cursor.head);
    if (file !== undefined) reader.inode = file.inode;
    return file;
  }

  /** `headOf` is asked again once it has looked: what is gone is left. */
  async #openHead(headOf: () => string): Promise<OpenSegment | undefined> {
    for (let tries = 0; tries < 2; tries++) {
      const head = headOf();
      const path = this.#segments[this.#indexOf(head)]?.path ?? '';
      if (path !== '') {
        const file = await openSegment(path).catch((error) => {
          if (path === this.path || !isForGood(error)) throw error;
          return undefined;
        });
        if (file !== undefined && file.head === head && headOf() === head) return file;
        await file?.handle.close();
      }
      await this.look(); // it was renamed since
    }
    return undefined;
  }

  /** Where the reader stops: where the tally is, or at the end of the file. */
  #limitOf(name: string, { size }: OpenSegment, { head }: Cursor): number {
    if (name === tally) return size;
    const ahead = this.#reader(tally).cursor;
    if (ahead.head === head) return Math.min(size, ahead.offset);
    return this.#indexOf(ahead.head) > this.#indexOf(head) ? size : 0;
  }

  /** At the end of a segment: to the next one, if there is one and nobody writes to this any more. */
  async #advance(name: string, reader: Reader, file: OpenSegment, limit: number): Promise<boolean> {
    const { head, offset } = reader.cursor;
    if (head !== file.head) return true; // it was moved: its segment is gone
    if (file.size < offset) {
      await this.#cutBack(file);
      return true;
    }
    const at = this.#indexOf(head);
    const next = at < 0 ? undefined : this.#segments[at + 1];
    if (next === undefined || limit < offset) return false;
    const isDone =
      name === tally
        ? Math.abs(Date.now() - file.mtimeMs) >= restMs // a clock that was set back proves nothing
        : this.#indexOf(this.#reader(tally).cursor.head) > at;
    if (isDone) this.#leave(name, reader, next);
    return isDone;
  }

  /** What the tally has seen in the segment and is not in it any more is lost. */
  #leave(name: string, reader: Reader, next: Segment): void {
    const { head, lines } = reader.cursor;
    this.#lost(name, (this.#segments[this.#indexOf(head)]?.lines ?? 0) - lines);
    reader.cursor = { ...beginning, head: next.head };
  }

  /** If the file has lost its end: nobody is behind the last whole line that is left. */
  async #cutBack({ handle, head, size: sizeBefore }: OpenSegment): Promise<void> {
    const cursors = [...this.#readers.values()].map(({ cursor }) => cursor);
    const isShorter = (size: number): boolean =>
      cursors.some((cursor) => cursor.head === head && cursor.offset > size);
    if (!isShorter(sizeBefore)) return;
    // Files grow: only a size that was asked for after the cursors proves it.
    const { size } = await handle.stat();
    if (!isShorter(size)) return;
    const end = await endOf(handle, head, size);
    const at = this.#indexOf(head);
    const segment = this.#segments[at];
    const known = segment?.lines ?? 0;
    for (const [name, reader] of this.#readers) {
      const { cursor } = reader;
      const own = this.#indexOf(cursor.head);
      const had = own === at ? cursor.lines : 0;
      if (own <= at) this.#lost(name, known - Math.max(had, end.lines));
      if (own === at && cursor.offset > end.offset) reader.cursor = end;
    }
    if (segment !== undefined) segment.lines = Math.min(known, end.lines);
  }

  #lost(name: string, lines: number): void {
    if (name !== tally && lines > 0) this.#parts.onLost(name, lines);
  }

  /** Undefined: there is none, or it is passed over. */
  async #openAny(path: string): Promise<OpenSegment | undefined> {
    try {
      const file = await openSegment(path);
      this.#passedOver.delete(path);
      return file;
    } catch (error) {
      if (path === this.path || !isForGood(error as NodeJS.ErrnoException)) throw error;
      if (!this.#passedOver.has(path)) this.#parts.onPassedOver(path, error);
      this.#passedOver.add(path);
      return undefined;
    }
  }

  async #look(): Promise<void> {
    const name = basename(this.path);
    const names = await readdir(dirname(this.path)).catch(ignoreMissing);
    const numbers = (names ?? []).flatMap((each) => {
      const rest = each.startsWith(`${name}.`) ? each.slice(name.length + 1) : '';
      return /^[1-9]\d{0,3}$/.test(rest) ? [Number(rest)] : [];
    });
    // From the newest on: a file that is renamed meanwhile is met twice and none is missed.
    const found = new Map<string, Found>();
    for (let n = 0; n <= Math.max(0, ...numbers) + 1; n++) {
      const path = n === 0 ? this.path : join(dirname(this.path), `${name}.${n}`);
      const file = await this.#openAny(path);
      if (file === undefined) continue;
      try {
        await this.#cutBack(file);
      } finally {
        await file.handle.close();
      }
      const { head, size } = file;
      found.delete(head);
      found.set(head, { head, path, size });
    }
    if (found.size > 0) this.#replace([...found.values()].reverse());
  }

  #replace(all: readonly Found[]): void {
    const before = this.#segments;
    const known = new Map(before.map((segment) => [segment.head, segment.lines]));
    // A file that comes is the newest: one that nobody knows among those that are known was passed over.
    const last = all.findLastIndex(({ head }) => known.has(head));
    const found = all.filter(({ head }, i) => i > last || known.has(head));
    const isThere = new Set(found.map(({ head }) => head));
    this.#segments = found.map(({ head, path }) => ({ head, path, lines: known.get(head) ?? 0 }));
    for (const [name, reader] of this.#readers) {
      const { head, lines } = reader.cursor;
      const rest = before.slice(
        Math.max(
          0,
          before.findIndex((each) => each.head === head),
        ),
      );
      const gone = rest.filter((each) => !isThere.has(each.head));
      const count = gone.reduce((sum, each) => sum + each.lines, 0);
      this.#lost(name, count - (isThere.has(head) ? 0 : lines));
      if (isThere.has(head)) continue;
      reader.inode = -1; // it may come again
      const next = rest.find((each) => isThere.has(each.head))?.head ?? all[last + 1]?.head;
      reader.cursor = next === undefined ? endOfAll(found, known) : { ...beginning, head: next };
    }
  }
}

/** Behind all that is known, where nothing else has come. */
function endOfAll(found: readonly Found[], known: ReadonlyMap<string, number>): Cursor {
  const { head, size: offset } = found.at(-1) as Found;
  return { head, offset, lines: known.get(head) ?? 0 };
}

/** Whether waiting would not help; with anything else, as with too many open files, it may. */
function isForGood({ code = '' }: NodeJS.ErrnoException): boolean {
  return ['EACCES', 'EPERM', 'EISDIR', 'ELOOP', 'EIO'].includes(code);
}
