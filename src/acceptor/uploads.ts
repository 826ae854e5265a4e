/**
 * Bodies that this acceptor is reading, by the tenant that sends them: no tenant with a `concurrency` limit
 * holds more slots by uploads than it may have requests. Acceptor threads, each its own; never blocks.
 *
 * The scheduler asks the limit of a whole request, which an upload that stands still never becomes. A request
 * keeps the count that it is in: rows that a reload gives to others, or takes away, leave it alone.
 */
import type { LimitTable } from '../shm/limits.ts';
import type { Request, RequestFacts } from './request.ts';

/** Of one row under one owner. */
export interface UploadCount {
  readonly owner: number;
  reading: number;
}

export class Uploads {
  readonly #limits: LimitTable;
  /** By row; one that had no upload yet has none. */
  readonly #counts: (UploadCount | undefined)[] = [];

  constructor(limits: LimitTable) {
    this.#limits = limits;
  }

  /** Its tenant sends as many as it may have requests. A request without a body is never one too many. */
  isFull({ holder, contentLength }: RequestFacts): boolean {
    if (holder === undefined || holder.limitRow < 0 || contentLength === 0) return false;
    const { words, at } = this.#limits;
    const most = words[this.#limits.word(holder.limitRow) + at.concurrency] as number;
    return most > 0 && this.#countOf(holder.limitRow).reading >= most;
  }

  begin(request: Request): void {
    const { holder, contentLength } = request.facts;
    if (holder === undefined || holder.limitRow < 0 || contentLength === 0) return;
    request.upload = this.#countOf(holder.limitRow);
    request.upload.reading++;
  }

  /** Its body is whole, or nobody waits for it any more; called again it does nothing. */
  end(request: Request): void {
    if (request.upload === undefined) return;
    request.upload.reading--;
    request.upload = undefined;
  }

  #countOf(row: number): UploadCount {
    const { words, at } = this.#limits;
    const owner = words[this.#limits.word(row) + at.owner] as number;
    const known = this.#counts[row];
    if (known !== undefined && known.owner === owner) return known;
    const count = { owner, reading: 0 };
    this.#counts[row] = count;
    return count;
  }
}
