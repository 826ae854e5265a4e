/**
 * A file of JSON lines that must not be lost: appended to, renamed when it is large, waited for while it
 * cannot be written. One that cannot be renamed grows on. Any thread with an event loop; `add` never waits
 * and never throws.
 *
 * At least once: what may have been written when a write failed is written again, behind a line end, so
 * that a line cut in two stays alone; lines carry ids. Lost are the lines of the last moments of a
 * process that is killed, and the oldest of those that wait past `bufferBytesMax`, which are counted.
 *
 * Two processes may write one file: each write is whole lines behind the end of the file, wherever that is
 * by now. But only one of them may rename (`mayRename`): each of two would put its file over that of the other.
 */
import { type FileHandle, lstat, open, rename, rm, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../lib/clock.ts';

/** Lines are written at most this much later, and at once when this much waits. */
const flushMs = 200;
/** What one write has at most: so much is there twice after one that failed. */
const chunkBytes = 64 * 1024;
const retryMs = 500;
/** Whatever keeps a file from being renamed is mended by hand. */
const renameRetryMs = 30_000;
const lf = 0x0a;

export interface UsageFileOptions {
  readonly path: string;
  readonly maxBytes: number;
  /** Renamed files that are kept. */
  readonly keep: number;
  readonly bufferBytesMax: number;
  /** Whether a full file is renamed; else it grows on. At no time true for two who write one file. */
  readonly mayRename: () => boolean;
  /** Told of lines that are lost; must not throw. */
  readonly onDrop: (lines: number) => void;
  /** Told once of each row of failures, and once when it is over (undefined). */
  readonly onFailure: (error: unknown) => void;
  /** The same of renaming a full file: lines are written to it meanwhile. */
  readonly onRenameFailure: (error: unknown) => void;
}

export class UsageFile {
  readonly #options: UsageFileOptions;
  readonly #timer: NodeJS.Timeout;
  /** The oldest first; the first `#underWay` of them are being written. */
  readonly #waiting: string[] = [];
  #waitingBytes = 0;
  #underWay = 0;
  #handle: FileHandle | undefined;
  #size = 0;
  /** The file ends in the middle of a line, or may. */
  #isTorn = false;
  #running: Promise<void> | undefined;
  #isFailing = false;
  /** When a full file is renamed at the earliest; 0: the last time it could be. */
  #renameAtMs = 0;
  readonly #closing = new AbortController();
  #isOver = false;

  constructor(options: UsageFileOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#start(), flushMs).unref();
    this.#start();
  }

  /** Takes one line with its end of line. */
  add(line: string): void {
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
    let lost = 0;
    while (this.#waitingBytes > this.#options.bufferBytesMax) {
      const oldest = this.#waiting[this.#underWay + lost];
      if (oldest === undefined) break;
      this.#waitingBytes -= oldest.length;
      lost++;
    }
    if (lost > 0) {
      this.#waiting.splice(this.#underWay, lost);
      this.#options.onDrop(lost);
    }
    if (this.#waitingBytes >= chunkBytes && !this.#isFailing) this.#start();
  }

  /** Writes what waits, for at most `limitMs`; what is left then is lost and counted. */
  async close(limitMs: number): Promise<void> {
    clearInterval(this.#timer);
    this.#start();
    this.#closing.abort(); // a wait for the next try ends
    const last = async (): Promise<void> => {
      await this.#running;
      await this.#leave();
    };
    await Promise.race([last().catch(() => {}), sleep(limitMs, undefined, { ref: false })]);
    this.#isOver = true;
    const left = this.#waiting.length;
    if (left > 0) this.#options.onDrop(left);
    this.#waiting.length = 0;
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    // Open from the start: that it cannot be is said before there is anything to write.
    if (this.#handle === undefined) await this.#tried(() => this.#current(0));
    while (this.#waiting.length > 0 && !this.#isOver) {
      if (await this.#tried(() => this.#appendFirst())) continue;
      if (this.#closing.signal.aborted) return;
      const { signal } = this.#closing;
      await sleep(retryMs, undefined, { ref: false, signal }).catch(() => {});
    }
  }

  async #tried(write: () => Promise<unknown>): Promise<boolean> {
    try {
      await write();
      if (this.#isFailing) this.#options.onFailure(undefined);
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing) this.#options.onFailure(error);
      this.#isFailing = true;
      this.#isTorn = true;
      await this.#leave().catch(() => {});
    }
    this.#underWay = 0;
    return !this.#isFailing;
  }

  /** Writes the oldest lines, as many as one write may have. */
  async #appendFirst(): Promise<void> {
    let bytes = 0;
    let count = 0;
    while (count < this.#waiting.length && (count === 0 || bytes < chunkBytes)) {
      bytes += (this.#waiting[count++] as string).length;
    }
    this.#underWay = count;
    const handle = await this.#current(bytes);
    const lines = this.#waiting.slice(0, count).join('');
    let rest: Uint8Array = Buffer.from(this.#isTorn ? `\n${lines}` : lines);
    while (rest.length > 0) {
      const { bytesWritten } = await handle.write(rest);
      this.#size += bytesWritten;
      rest = rest.subarray(bytesWritten);
    }
    this.#isTorn = false;
    if (this.#isOver) return; // they were counted as lost
    this.#waiting.splice(0, count);
    this.#waitingBytes -= bytes;
  }

  /** The file, or a new one when it is full or somebody has taken it away. */
  async #current(bytes: number): Promise<FileHandle> {
    const { maxBytes, mayRename } = this.#options;
    if (this.#handle !== undefined && !(await this.#isThere(this.#handle))) await this.#leave();
    let handle = this.#handle ?? (await this.#open());
    const isFull = this.#size > 0 && this.#size + bytes > maxBytes;
    if (isFull && !this.#isFailing && nowMs() >= this.#renameAtMs && mayRename()) {
      await this.#leave();
      await this.#tryRotate();
      handle = await this.#open();
    }
    return handle;
  }

  async #tryRotate(): Promise<void> {
    const wasFailing = this.#renameAtMs > 0;
    try {
      await this.#rotate();
      this.#renameAtMs = 0;
      if (wasFailing) this.#options.onRenameFailure(undefined);
    } catch (error) {
      this.#renameAtMs = nowMs() + renameRetryMs;
      if (!wasFailing) this.#options.onRenameFailure(error);
    }
  }

  async #open(): Promise<FileHandle> {
    const handle = await open(this.#options.path, 'a+', 0o640);
    this.#handle = handle;
    await this.#look(handle, (await handle.stat()).size);
    return handle;
  }

  /** What is at the end of the file, which somebody else has written. */
  async #look(handle: FileHandle, size: number): Promise<void> {
    const last = Buffer.alloc(1, lf);
    if (size > 0) await handle.read(last, 0, 1, size - 1);
    this.#isTorn = last[0] !== lf;
    this.#size = size;
  }

  async #isThere(handle: FileHandle): Promise<boolean> {
    const [own, there] = await Promise.all([
      handle.stat(),
      stat(this.#options.path).catch(() => undefined),
    ]);
    if (own.size !== this.#size) await this.#look(handle, own.size);
    return there?.ino === own.ino && there.dev === own.dev;
  }

  async #leave(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  /** Makes room first, no more than one name: a file that cannot be renamed, however often, loses no other. */
  async #rotate(): Promise<void> {
    const { path, keep } = this.#options;
    let free = 1;
    while (free < keep && (await exists(`${path}.${free}`))) free++;
    if (free === keep) await rm(`${path}.${keep}`, { force: true });
    for (let n = free - 1; n >= 1; n--) {
      await rename(`${path}.${n}`, `${path}.${n + 1}`).catch(ignoreMissing);
    }
    await rename(path, `${path}.1`);
  }
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreMissing)) !== undefined;
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
