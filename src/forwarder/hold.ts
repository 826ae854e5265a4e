/**
 * Window 0: what came before the first content is held back, so that a failure until then costs the
 * client nothing. Forwarder threads.
 *
 * Role chunks, pings and comments take far less than the bound; a stream that exceeds it without
 * content has a shape we do not know and is given to the client as it comes.
 */
import type { AnswerSink } from './answer.ts';

const holdBytesMax = 16 * 1024;

export class Hold {
  readonly #held: Uint8Array[] = [];
  #bytes = 0;

  push(bytes: Uint8Array): void {
    this.#held.push(bytes);
    this.#bytes += bytes.length;
  }

  get isEmpty(): boolean {
    return this.#held.length === 0;
  }

  /** Whether with `more` bytes the bound is passed. */
  full(more: number): boolean {
    return this.#bytes + more > holdBytesMax;
  }

  release(sink: AnswerSink): void {
    for (const bytes of this.#held) sink.emit(bytes);
    this.#held.length = 0;
    this.#bytes = 0;
  }
}
