/**
 * Brings events to one sink, in the order of each file, until it has them all. Ledger thread; waits only
 * for the sink and the files.
 *
 * At least once: a cursor moves when the sink has said that a chunk is stored; what is not known to be is
 * sent again, over another connection, after a growing pause and for as long as it takes. The files are
 * the queue: in memory is one chunk. What was never an event (a line that was cut in two) is passed over.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseUsageEvent, type UsageEvent } from '../telemetry/usage-event.ts';
import type { Journal } from './journal.ts';
import type { Chunk } from './segment.ts';
import type { UsageSink } from './sinks/sink.ts';

export interface CourierParts {
  readonly name: string;
  readonly journals: readonly Journal[];
  /** What comes next; undefined: nothing does, or it cannot be read. Never rejects. */
  read(journal: Journal): Promise<Chunk | undefined>;
  open(): Promise<UsageSink>;
  /** So many are stored. */
  onStored(events: number): void;
  /** Not known to be stored, and sent again. */
  onFailed(events: number): void;
  /** Told once of each row of failures, and once when it is over (undefined). */
  onTrouble(error: unknown): void;
}

/** A sink that has said nothing for so long has failed, whatever its package thinks. */
const answerMsMax = 20_000;
const pauseMs = 250;
const pauseMsMax = 10_000;

export class Courier {
  readonly #parts: CourierParts;
  readonly #closing = new AbortController();
  readonly #running: Promise<void>;
  #wake = Promise.withResolvers<void>();
  #sink: UsageSink | undefined;
  #failures = 0;
  #oldestMs = 0;
  #isOver = false;

  constructor(parts: CourierParts) {
    this.#parts = parts;
    this.#running = this.#run();
  }

  get waiting(): number {
    const { journals, name } = this.#parts;
    return journals.reduce((sum, journal) => sum + journal.waiting(name), 0);
  }

  /** Wall clock at which the oldest event came that is known not to be there; 0: it has them all. */
  get oldestMs(): number {
    return this.waiting === 0 ? 0 : this.#oldestMs;
  }

  /** There may be more in the files. */
  wake(): void {
    this.#wake.resolve();
  }

  /** Brings what is there, if the sink takes it, for at most `limitMs`; the rest stays in the files. */
  async close(limitMs: number): Promise<void> {
    this.#closing.abort(); // a pause ends
    this.wake();
    await Promise.race([this.#running, sleep(limitMs, undefined, { ref: false })]);
    this.#isOver = true;
    const sink = this.#sink;
    this.#sink = undefined;
    await Promise.race([sink?.close(), sleep(limitMs, undefined, { ref: false })]);
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      this.#wake = Promise.withResolvers();
      let lines = 0;
      for (const journal of this.#parts.journals) {
        lines += await this.#deliver(journal);
        if (this.#failures > 0) break;
      }
      const isIdle = this.#failures > 0 || lines === 0;
      if (isIdle && this.#closing.signal.aborted) return;
      if (this.#failures > 0) await this.#pause();
      else if (lines === 0) await this.#wake.promise;
    }
  }

  /** One chunk of a journal; resolves with its lines. Never rejects. */
  async #deliver(journal: Journal): Promise<number> {
    const events: UsageEvent[] = [];
    try {
      const chunk = await this.#parts.read(journal);
      if (chunk === undefined) return 0;
      const records = chunk.lines.flatMap((line) => {
        const event = parseUsageEvent(line);
        if (event === undefined) return [];
        events.push(event);
        const { id, tenant = null } = event;
        return [{ id, tenant, line }];
      });
      this.#oldestMs = Date.parse(events[0]?.time ?? '') || 0;
      if (records.length > 0) {
        this.#sink ??= await this.#open();
        await inTime(this.#sink.send(records));
        this.#parts.onStored(records.length);
      }
      journal.commit(this.#parts.name, chunk);
      if (this.#failures > 0) this.#parts.onTrouble(undefined);
      this.#failures = 0;
      return chunk.lines.length;
    } catch (error) {
      if (this.#failures++ === 0) this.#parts.onTrouble(error);
      this.#parts.onFailed(events.length);
      const sink = this.#sink;
      this.#sink = undefined;
      if (sink !== undefined) await inTime(sink.close()).catch(() => {});
      return 0;
    }
  }

  async #open(): Promise<UsageSink> {
    const opening = this.#parts.open();
    try {
      return await inTime(opening);
    } catch (error) {
      void opening.then((late) => late.close()).catch(() => {}); // it is out of time, not out of sockets
      throw error;
    }
  }

  async #pause(): Promise<void> {
    const ms = Math.min(pauseMs * 2 ** (this.#failures - 1), pauseMsMax);
    const { signal } = this.#closing;
    await sleep(ms, undefined, { ref: false, signal }).catch(() => {});
  }
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const text = `no answer within ${answerMsMax / 1000} s`;
    timer = setTimeout(() => reject(new Error(text)), answerMsMax);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
