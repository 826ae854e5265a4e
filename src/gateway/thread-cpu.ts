/**
 * CPU time of each thread of the process, as the system counts it. Main thread, once a scrape.
 *
 * A thread is known by the name it gave itself (lib/thread-name.ts); what has none of ours is `other`. What a
 * thread has used since the last look is added to the name it has now, so no total falls when a thread dies,
 * is renamed or gets the number of one that died; what it used after the last look before its death is lost.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** Ticks of /proc, whatever the kernel itself counts in: USER_HZ of every system we run on. */
const ticksPerSecond = 100;
const ownNames =
  /^(?:scheduler|limiter|ledger|tracer|tokenizer|acceptor-\d{1,3}|forwarder-\d{1,3})$/;
/** Places behind the name in /proc/PID/task/TID/stat; the state is 0. */
const userTicks = 11;
const systemTicks = 12;

export class ThreadCpu {
  readonly #folder: string;
  readonly #mainId: string;
  #ticks = new Map<string, number>();
  readonly #totals = new Map<string, number>();

  constructor(folder = '/proc/self/task', mainId = String(process.pid)) {
    this.#folder = folder;
    this.#mainId = mainId;
  }

  /** Seconds by name; empty where the system does not tell. */
  read(): ReadonlyMap<string, number> {
    const ticks = new Map<string, number>();
    for (const id of this.#ids()) {
      const seen = readStat(`${this.#folder}/${id}/stat`);
      if (seen === undefined) continue;
      ticks.set(id, seen.ticks);
      const before = this.#ticks.get(id) ?? 0;
      const more = seen.ticks < before ? seen.ticks : seen.ticks - before;
      const name = this.#nameOf(id, seen.name);
      this.#totals.set(name, (this.#totals.get(name) ?? 0) + more / ticksPerSecond);
    }
    this.#ticks = ticks;
    return this.#totals;
  }

  #nameOf(id: string, name: string): string {
    if (id === this.#mainId) return 'main';
    return ownNames.test(name) ? name : 'other';
  }

  #ids(): string[] {
    try {
      return readdirSync(this.#folder);
    } catch {
      return [];
    }
  }
}

/** Undefined: the thread has ended. */
function readStat(path: string): { readonly name: string; readonly ticks: number } | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
  // A name may hold anything, parentheses too.
  const end = text.lastIndexOf(')');
  const fields = text.slice(end + 2).split(' ');
  const ticks = Number(fields[userTicks]) + Number(fields[systemTicks]);
  return Number.isNaN(ticks) ? undefined : { name: text.slice(text.indexOf('(') + 1, end), ticks };
}
