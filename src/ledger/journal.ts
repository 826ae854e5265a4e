/**
 * One acceptor's usage files as a log that several readers follow, each at its own pace. Ledger thread.
 *
 * A segment is a file, known by its first bytes (the id of its first event): it keeps them when it is
 * renamed, and an inode number may come again. The reader `tally` goes first and counts the lines of each
 * segment; the others read up to where it is. So what a reader has before it is a number, and so is what
 * it has lost when a file is deleted before it was read.
 * A line without an end is not there yet. Bounded: one chunk in memory and one open file per reader, while it reads.
 */
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Where a reader goes on: `offset` bytes and `lines` lines into a segment. */
export interface Cursor {
  /** First bytes of the segment; '': there was none yet. */
  readonly head: string;
  readonly offset: number;
  readonly lines: number;
}
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
export interface Chunk {
  readonly lines: readonly string[];
  readonly from: Cursor;
  readonly to: Cursor;
}
interface Reader {
  cursor: Cursor;
  /** Of the file that was read last. */
  inode: number;
  /** There was nothing more when it was last asked. */
  isAtEnd: boolean;
}
interface OpenSegment {
  readonly handle: FileHandle;
  readonly head: string;
  readonly inode: number;
  readonly size: number;
  readonly mtimeMs: number;
}

export const tally = 'tally';
const beginning: Cursor = { head: '', offset: 0, lines: 0 };
/** `{"id":"` and a UUID: shorter than any event. */
const headBytes = 44;
/** Some 250 events: what a sink gets at one time, and gets again when that fails. */
const chunkBytes = 128 * 1024;
/** A process that leaves may still write a last time to a file that another has renamed. */
const restMs = 1000;
const lf = 0x0a;

export class Journal {
  readonly path: string;
  /** The oldest first. */
  #segments: Segment[];
  readonly #readers: Map<string, Reader>;
  readonly #onLost: (reader: string, lines: number) => void;
  #looking: Promise<void> | undefined;

  /** `names` are those of its readers, without the tally. */
  constructor(
    path: string,
    saved: SavedJournal | undefined,
    names: readonly string[],
    onLost: (reader: string, lines: number) => void,
  ) {
    this.path = path;
    this.#onLost = onLost;
    this.#segments = (saved?.segments ?? []).map((segment) => ({ ...segment, path: '' }));
    const first = { ...beginning, head: this.#segments[0]?.head ?? '' };
    const reader = (name: string): [string, Reader] => {
      const cursor = saved?.cursors[name] ?? first;
      return [name, { cursor, inode: -1, isAtEnd: false }];
    };
    this.#readers = new Map([tally, ...names].map(reader));
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
        mayBeMore = this.#advance(name, reader, file, limit);
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
    const segment = this.#segments[this.#indexOf(to.head)];
    if (segment !== undefined) segment.lines = to.lines;
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
    for (let tries = 0; tries < 2; tries++) {
      const segment = this.#segments[this.#indexOf(reader.cursor.head)];
      if (segment !== undefined && segment.path !== '') {
        const file = await openSegment(segment.path);
        if (file !== undefined && file.head === reader.cursor.head) {
          reader.inode = file.inode;
          return file;
        }
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
  #advance(name: string, reader: Reader, file: OpenSegment, limit: number): boolean {
    const { head, offset } = reader.cursor;
    if (head !== file.head) return true; // it was moved: its segment is gone
    if (limit < offset) {
      // Somebody has cut the file short: what is in it was not read.
      reader.cursor = { ...beginning, head };
      return limit > 0;
    }
    const at = this.#indexOf(head);
    const next = at < 0 ? undefined : this.#segments[at + 1];
    if (next === undefined) return false;
    const isDone =
      name === tally
        ? Date.now() - file.mtimeMs >= restMs
        : this.#indexOf(this.#reader(tally).cursor.head) > at;
    if (isDone) reader.cursor = { ...beginning, head: next.head };
    return isDone;
  }

  async #look(): Promise<void> {
    const name = basename(this.path);
    const names = await readdir(dirname(this.path)).catch(ignoreMissing);
    const numbers = (names ?? []).flatMap((each) => {
      const rest = each.startsWith(`${name}.`) ? each.slice(name.length + 1) : '';
      return /^[1-9]\d{0,3}$/.test(rest) ? [Number(rest)] : [];
    });
    // From the newest on: a file that is renamed meanwhile is met twice and none is missed.
    const found = new Map<string, string>();
    for (let n = 0; n <= Math.max(0, ...numbers) + 1; n++) {
      const path = n === 0 ? this.path : join(dirname(this.path), `${name}.${n}`);
      const segment = await openSegment(path);
      await segment?.handle.close();
      if (segment === undefined) continue;
      found.delete(segment.head);
      found.set(segment.head, path);
    }
    this.#replace([...found].reverse());
  }

  #replace(found: readonly (readonly [head: string, path: string])[]): void {
    const before = this.#segments;
    const known = new Map(before.map((segment) => [segment.head, segment.lines]));
    const isThere = new Set(found.map(([head]) => head));
    this.#segments = found.map(([head, path]) => ({ head, path, lines: known.get(head) ?? 0 }));
    for (const [name, reader] of this.#readers) {
      const { head, lines } = reader.cursor;
      if (isThere.has(head)) continue;
      const gone = before.slice(
        Math.max(
          0,
          before.findIndex((each) => each.head === head),
        ),
      );
      const next = gone.findIndex((segment) => isThere.has(segment.head));
      const lost = next < 0 ? gone : gone.slice(0, next);
      const count = lost.reduce((sum, each) => sum + each.lines, 0) - lines;
      if (count > 0) this.#onLost(name, count);
      // Behind all that was known comes what was not.
      const first = gone[next]?.head ?? found.find(([each]) => !known.has(each))?.[0] ?? '';
      reader.cursor = { ...beginning, head: first };
    }
  }
}

/** A file that has a head; undefined: there is none, or it has none yet. */
async function openSegment(path: string): Promise<OpenSegment | undefined> {
  const handle = await open(path, 'r').catch(ignoreMissing);
  if (handle === undefined) return undefined;
  const bytes = Buffer.alloc(headBytes);
  try {
    const { bytesRead } = await handle.read(bytes, 0, headBytes, 0);
    if (bytesRead === headBytes) {
      const { ino: inode, size, mtimeMs } = await handle.stat();
      return { handle, head: bytes.toString('latin1'), inode, size, mtimeMs };
    }
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

async function nextLines(
  handle: FileHandle,
  from: Cursor,
  limit: number,
): Promise<Chunk | undefined> {
  const length = Math.min(chunkBytes, limit - from.offset);
  if (length <= 0) return undefined;
  const { bytesRead, buffer } = await handle.read(
    Buffer.allocUnsafe(length),
    0,
    length,
    from.offset,
  );
  // No event is that long: what has no end in so many bytes is none.
  const isNoLine = bytesRead === chunkBytes && buffer.lastIndexOf(lf) < 0;
  const end = isNoLine ? bytesRead : buffer.subarray(0, bytesRead).lastIndexOf(lf) + 1;
  if (end === 0) return undefined;
  const text = isNoLine ? '' : buffer.toString('utf8', 0, end);
  const lines = text.split('\n').filter((line) => line !== '');
  const { head, offset } = from;
  return { lines, from, to: { head, offset: offset + end, lines: from.lines + lines.length } };
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
