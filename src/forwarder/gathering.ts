/**
 * A batch on its way out of the dispatch ring, and which of its members can share a call. Forwarder
 * threads.
 *
 * The scheduler says that attempts belong together; whether they do is seen from their bytes, so
 * neither a collision of hashes nor a record too many can put the wrong ones together.
 */
import { nowMs } from '../lib/clock.ts';
import type { ReplicaPool } from './pools.ts';
import { sharedHead, type UpstreamRequest, type UpstreamRequests } from './upstream-requests.ts';

/** An attempt to be started, as its record says. */
export interface Start {
  readonly slot: number;
  readonly lease: number;
  readonly replica: number;
  readonly epoch: number;
}

/**
 * A batch is written in microseconds. What is not there after this has died with its writer; a writer
 * that was only stopped for so long finds its batch in two halves, which harms nobody.
 */
const abandonedMs = 250;

export class Gathering {
  #starts: Start[] = [];
  #sinceMs = 0;

  /** More is to come. */
  get isOpen(): boolean {
    return this.#starts.length > 0;
  }

  has({ slot }: Start): boolean {
    return this.#starts.some((start) => start.slot === slot);
  }

  /** Whoever was writing it writes no more. */
  get isAbandoned(): boolean {
    return this.isOpen && nowMs() - this.#sinceMs > abandonedMs;
  }

  add(start: Start): void {
    if (!this.isOpen) this.#sinceMs = nowMs();
    this.#starts.push(start);
  }

  take(): readonly Start[] {
    const starts = this.#starts;
    this.#starts = [];
    return starts;
  }
}

/** An attempt that is about to run. */
export interface DueAttempt {
  readonly slot: number;
  readonly lease: number;
  readonly pool: ReplicaPool;
  readonly request: UpstreamRequest;
}

/** Those that are alike together, each group in the order in which they came. */
export function groupsOf(
  due: readonly DueAttempt[],
  upstream: UpstreamRequests,
): readonly (readonly DueAttempt[])[] {
  const groups: { readonly head: string; readonly members: DueAttempt[] }[] = [];
  for (const attempt of due) {
    const head = sharedHead(attempt.request);
    const group = groups.find(({ head: known, members: [first] }) => {
      if (head === '' || head !== known || first?.pool !== attempt.pool) return false;
      return upstream.areAlike(first, attempt);
    });
    if (group === undefined) groups.push({ head, members: [attempt] });
    else group.members.push(attempt);
  }
  return groups.map(({ members }) => members);
}
