/**
 * A file of JSON lines that must not be lost: appended to, renamed when it is large, waited for while it
 * cannot be written. Any thread with an event loop; `add` never waits and never throws.
 *
 * At least once: what may have been written when a write failed is written again, behind a line end, so
 * that a line cut in two stays alone; lines carry ids. Lost are the lines of the last moments of a
 * process that is killed, and the oldest of those that wait past `bufferBytesMax`, which are counted.
 */
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** Lines are written at most this much later, and at once when this much waits. */
const flushMs = 200;
const eagerBytes = 64 * 1024;
const retryMs = 1000;

export interface UsageFileOptions {
  readonly path: string;
  readonly maxBytes: number;
  /** Renamed files that are kept. */
  readonly keep: number;
  readonly bufferBytesMax: number;
  /** Told of lines that are lost; must not throw. */
  readonly onDrop: (lines: number) => void;
  /** Told once of each row of failures, and once when it is over (undefined). */
  readonly onFailure: (error: unknown) => void;
}

export class UsageFile {
  readonly #options: UsageFileOptions;
  readonly #timer: NodeJS.Timeout;
  /** The oldest first; those under way come before them. */
  #waiting: string[] = [];
  #waitingBytes = 0;
  #underWay: string[] = [];
  #handle: FileHandle | undefined;
  #size = 0;
  #running: Promise<void> | undefined;
  #isFailing = false;
  #isClosing = false;

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
    while (this.#waitingBytes > this.#options.bufferBytesMax && lost < this.#waiting.length) {
      this.#waitingBytes -= (this.#waiting[lost++] as string).length;
    }
    if (lost > 0) {
      this.#waiting.splice(0, lost);
      this.#options.onDrop(lost);
    }
    if (this.#waitingBytes >= eagerBytes && !this.#isFailing) this.#start();
  }

  /** Writes what waits, for at most `limitMs`; what is left then is lost and counted. */
  async close(limitMs: number): Promise<void> {
    clearInterval(this.#timer);
    this.#isClosing = true;
    this.#start();
    await Promise.race([this.#running, sleep(limitMs, undefined, { ref: false })]);
    const left = this.#waiting.length + this.#underWay.length;
    if (left > 0) this.#options.onDrop(left);
    this.#waiting = [];
    await this.#handle?.close().catch(() => {});
    this.#handle = undefined;
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    // Open from the start: that it cannot be is said before there is anything to write.
    if (this.#handle === undefined) await this.#tried(() => this.#current(0));
    while (this.#waiting.length > 0 || this.#underWay.length > 0) {
      if (this.#underWay.length === 0) {
        this.#underWay = this.#waiting;
        this.#waiting = [];
        this.#waitingBytes = 0;
      }
      const text = `${this.#isFailing ? '\n' : ''}${this.#underWay.join('')}`;
      if (await this.#tried(() => this.#append(text))) this.#underWay = [];
      else if (this.#isClosing) return;
      else await sleep(retryMs, undefined, { ref: false });
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
      await this.#handle?.close().catch(() => {});
      this.#handle = undefined;
    }
    return !this.#isFailing;
  }

  async #append(text: string): Promise<void> {
    let bytes = Buffer.from(text);
    const handle = await this.#current(bytes.length);
    while (bytes.length > 0) {
      const { bytesWritten } = await handle.write(bytes);
      this.#size += bytesWritten;
      bytes = bytes.subarray(bytesWritten);
    }
  }

  /** The file, or a new one when it is full or somebody has taken it away. */
  async #current(bytes: number): Promise<FileHandle> {
    const { path, maxBytes } = this.#options;
    if (this.#handle !== undefined && !(await this.#isThere(this.#handle))) await this.#leave();
    if (this.#handle === undefined) {
      this.#handle = await open(path, 'a', 0o640);
      this.#size = (await this.#handle.stat()).size;
    }
    if (this.#size > 0 && this.#size + bytes > maxBytes) {
      await this.#leave();
      await this.#rotate();
      this.#handle = await open(path, 'a', 0o640);
      this.#size = 0;
    }
    return this.#handle;
  }

  async #isThere(handle: FileHandle): Promise<boolean> {
    const [own, there] = await Promise.all([
      handle.stat(),
      stat(this.#options.path).catch(() => undefined),
    ]);
    return there?.ino === own.ino && there.dev === own.dev;
  }

  async #leave(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }

  async #rotate(): Promise<void> {
    const { path, keep } = this.#options;
    await rm(`${path}.${keep}`, { force: true });
    for (let n = keep - 1; n >= 1; n--) {
      await rename(`${path}.${n}`, `${path}.${n + 1}`).catch(ignoreMissing);
    }
    await rename(path, `${path}.1`);
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
