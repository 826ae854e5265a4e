/**
 * One file of a journal: opened, and read line by line from where a cursor is. Ledger thread.
 *
 * Bounded: one chunk in memory. A line without an end is not there yet.
 */
import { type FileHandle, open } from 'node:fs/promises';

/** Where a reader goes on: `offset` bytes and `lines` lines into a segment. */
export interface Cursor {
  /** First bytes of the segment; '': there was none yet. */
  readonly head: string;
  readonly offset: number;
  readonly lines: number;
}
export interface Chunk {
  readonly lines: readonly string[];
  readonly from: Cursor;
  readonly to: Cursor;
}
export interface OpenSegment {
  readonly handle: FileHandle;
  readonly head: string;
  readonly inode: number;
  readonly size: number;
  readonly mtimeMs: number;
}

export const beginning: Cursor = { head: '', offset: 0, lines: 0 };
/** `{"id":"` and a UUID: shorter than any event. */
export const headBytes = 44;
/** Some 250 events: what a sink gets at one time, and gets again when that fails. */
const chunkBytes = 128 * 1024;
const lf = 0x0a;

/** A file that has a head; undefined: there is none, or it has none yet. */
export async function openSegment(path: string): Promise<OpenSegment | undefined> {
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

/** Undefined: before `limit` there is no whole line. */
export async function nextLines(
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

/**
 * Behind the last whole line of the first `size` bytes. A line is whole too if it lacks only its end: what
 * is written next begins with one, and the line is not to come again.
 */
export async function endOf(handle: FileHandle, head: string, size: number): Promise<Cursor> {
  let end: Cursor = { ...beginning, head };
  for (;;) {
    const chunk = await nextLines(handle, end, size);
    if (chunk === undefined) break;
    end = chunk.to;
  }
  const length = size - end.offset;
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(length), 0, length, end.offset);
  const isWhole = length > 0 && bytesRead === length && isJson(buffer.toString());
  return isWhole ? { head, offset: size, lines: end.lines + 1 } : end;
}

/** No beginning of an object is. */
function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

export function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
