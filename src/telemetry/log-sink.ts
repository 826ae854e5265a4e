/**
 * Log sink: takes whole lines and writes them to a descriptor in chunks.
 *
 * Any thread with an event loop; one sink a thread. A write never throws and never waits: what does
 * not fit into `bufferBytesMax`, or what the descriptor refuses (EPIPE, ENOSPC), is dropped and counted.
 * Pipes, terminals and sockets that do not block are written in place: in order up to the last line
 * of a process that ends, at most PIPE_BUF bytes at once, which a pipe takes whole or not at all, so
 * lines of several threads never mix. Files go through libuv; at exit what it still has may land
 * behind later lines. Not pino.destination: a full pipe holds one of the four libuv threads, which also
 * look up names; on EPIPE it loses lines uncounted; at exit it repeats a failing write for ever.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, write, writeSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';

/** Linux: a write of up to this many bytes to a pipe is atomic. POSIX promises 512. */
const pipeBytesMax = process.platform === 'linux' ? 4096 : 512;
const fileBytesMax = 65_536;
/** A write starts at once when this much is waiting, else at the next tick of the flush timer. */
const eagerBytes = 8192;
const retryMs = 50;
/** At exit a full pipe is waited for so long in all; there is no event loop left that could. */
const exitFlushMs = 100;

export interface LogSinkOptions {
  /** Descriptor to write to; 1 is stdout. */
  readonly fd: number;
  readonly bufferBytesMax: number;
  /** A line appears at most this much later. */
  readonly flushMs: number;
  /** Told about each dropped line; must not throw. */
  readonly onDrop: (lines: number) => void;
}

interface Chunk {
  text: string;
  bytes: number;
  lines: number;
}

/** kernel: libuv has the first chunk. waiting: the descriptor is full, a timer will try again. */
type State = 'idle' | 'kernel' | 'waiting';

export class LogSink {
  readonly #options: LogSinkOptions;
  readonly #fd: number;
  /** The descriptor is our own, to be closed. */
  readonly #isOwn: boolean;
  /** Its writes never block. */
  readonly #writesInPlace: boolean;
  readonly #chunkBytesMax: number;
  /** The first one is under way unless idle; only later ones may still grow. */
  readonly #chunks: Chunk[] = [];
  readonly #timer: NodeJS.Timeout;
  readonly #flushed: (() => void)[] = [];
  readonly #atExit = (): void => this.#flushAtExit();
  /** What the descriptor has not taken of the first chunk. */
  #unsent: Uint8Array = new Uint8Array(0);
  #state: State = 'idle';
  #bufferedBytes = 0;
  #closing = false;
  #closed = false;

  constructor(options: LogSinkOptions) {
    assert(options.bufferBytesMax >= fileBytesMax);
    assert(options.flushMs > 0);
    this.#options = options;
    const target = fstatSync(options.fd);
    this.#fd = target.isFile() ? options.fd : nonBlocking(options.fd, target.isSocket());
    this.#isOwn = this.#fd !== options.fd;
    this.#writesInPlace = this.#isOwn || (target.isSocket() && isNonBlocking(options.fd));
    this.#chunkBytesMax = target.isFile() ? fileBytesMax : pipeBytesMax;
    this.#timer = setInterval(() => this.#pump(), options.flushMs).unref();
    process.on('exit', this.#atExit);
  }

  /** Takes one line with its end of line. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#closing || this.#bufferedBytes + bytes > this.#options.bufferBytesMax) {
      this.#options.onDrop(1);
      return;
    }
    this.#bufferedBytes += bytes;
    const last = this.#chunks.at(-1);
    const underWay = this.#state !== 'idle' && this.#chunks.length === 1;
    if (last === undefined || underWay || last.bytes + bytes > this.#chunkBytesMax) {
      this.#chunks.push({ text: line, bytes, lines: 1 });
    } else {
      last.text += line;
      last.bytes += bytes;
      last.lines += 1;
    }
    if (this.#bufferedBytes >= eagerBytes) this.#pump();
  }

  /** Resolves when all lines written so far have left or were dropped. */
  flush(): Promise<void> {
    this.#pump();
    if (this.#chunks.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#flushed.push(resolve));
  }

  /** Flushes for at most `limitMs`, then drops the rest; later lines are dropped and counted. */
  async close(limitMs: number): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs);
    });
    await Promise.race([this.flush(), limit]);
    clearTimeout(timer);
    clearInterval(this.#timer);
    process.off('exit', this.#atExit);
    this.#closed = true;
    if (this.#state !== 'kernel') this.#end();
  }

  /** Writes chunks until none is left, the descriptor is full, or libuv has one. */
  #pump(): void {
    while (this.#state === 'idle' && !this.#closed) {
      const chunk = this.#chunks[0];
      if (chunk === undefined) {
        for (const resolve of this.#flushed.splice(0)) resolve();
        return;
      }
      this.#unsent = Buffer.from(chunk.text);
      this.#send();
    }
  }

  #send(): void {
    if (!this.#writesInPlace) {
      this.#state = 'kernel';
      write(this.#fd, this.#unsent, (error, written) => {
        this.#sent(error, written);
        if (this.#closed && this.#state === 'idle') this.#end();
        else this.#pump();
      });
      return;
    }
    let written = 0;
    let failure: NodeJS.ErrnoException | null = null;
    try {
      written = writeSync(this.#fd, this.#unsent);
    } catch (error) {
      failure = error as NodeJS.ErrnoException;
    }
    this.#sent(failure, written);
  }

  #sent(error: NodeJS.ErrnoException | null, written: number): void {
    if (error === null && written < this.#unsent.length) {
      this.#unsent = this.#unsent.subarray(written);
      this.#send();
    } else if (error?.code === 'EAGAIN' && !this.#closed) {
      this.#state = 'waiting'; // what piles up behind it is bounded
      setTimeout(() => this.#retry(), retryMs).unref();
    } else {
      this.#finishFirst(error !== null);
    }
  }

  #retry(): void {
    if (this.#closed) return;
    this.#state = 'idle';
    this.#send();
    this.#pump();
  }

  #finishFirst(failed: boolean): void {
    const chunk = this.#chunks.shift();
    assert(chunk !== undefined);
    this.#bufferedBytes -= chunk.bytes;
    this.#state = 'idle';
    if (failed) this.#options.onDrop(chunk.lines);
  }

  #end(): void {
    for (const chunk of this.#chunks.splice(0)) this.#options.onDrop(chunk.lines);
    this.#bufferedBytes = 0;
    if (this.#isOwn) closeSync(this.#fd);
  }

  /** A chunk that libuv has is left to it: the process ends after that write, a copy would repeat. */
  #flushAtExit(): void {
    let limit = Number.POSITIVE_INFINITY; // until the first wait: a busy machine is not a full pipe
    for (const [index, chunk] of this.#chunks.entries()) {
      if (index === 0 && this.#state === 'kernel') continue;
      const resumes = index === 0 && this.#state === 'waiting';
      let data: Uint8Array = resumes ? this.#unsent : Buffer.from(chunk.text);
      while (data.length > 0) {
        try {
          data = data.subarray(writeSync(this.#fd, data));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || nowMs() >= limit) return;
          limit = Math.min(limit, nowMs() + exitFlushMs);
        }
      }
    }
  }
}

/**
 * A descriptor whose writes do not wait: a pipe or terminal is opened again, for flags of our own. A
 * socket (journald's stdout) cannot be; Node makes it non-blocking for all threads when the main
 * thread opens its stream. What can be neither goes through libuv, and may hold one of its threads.
 */
function nonBlocking(fd: number, isSocket: boolean): number {
  if (isSocket && isMainThread) void (fd === 1 ? process.stdout : fd === 2 && process.stderr);
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}

/** False where the system does not tell, and for what is not. */
function isNonBlocking(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'));
    return flags !== null && (Number.parseInt(flags[1] as string, 8) & constants.O_NONBLOCK) !== 0;
  } catch {
    return false;
  }
}
