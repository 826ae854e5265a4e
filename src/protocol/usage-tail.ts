/**
 * The usage of a JSON answer that is too large to be held, from its last bytes. Pure; forwarder threads.
 *
 * A quote behind `{` or `,` with `usage"` behind it opens a key: had it closed a string, the letters
 * behind it would be no JSON. When everything from that key on closes in one brace at the very end of
 * the answer, the key is a member of the outermost object. What lies further back is not known.
 */
import { Buffer } from 'node:buffer';
import { type CompletionObserver, Observed, type Usage } from './completion-observer.ts';
import { comma, openBrace } from './json-skip.ts';
import type { AnswerShape } from './routes.ts';

/** Usage has some 300 bytes, what engines put behind it a few hundred. */
const tailBytesMax = 2048;
const key = Buffer.from('"usage"');
const space = 0x20;

export class UsageTail {
  readonly #bytes = Buffer.allocUnsafe(tailBytesMax);
  #length = 0;

  push(chunk: Uint8Array): void {
    const bytes = this.#bytes;
    const fresh = chunk.subarray(Math.max(0, chunk.length - tailBytesMax));
    const kept = Math.min(this.#length, tailBytesMax - fresh.length);
    bytes.copyWithin(0, this.#length - kept, this.#length);
    bytes.set(fresh, kept);
    this.#length = kept + fresh.length;
  }

  /** What the complete answer says was used; undefined when its end does not. */
  read(observer: CompletionObserver, shape: AnswerShape): Usage | undefined {
    const tail = this.#bytes.subarray(0, this.#length);
    for (let at = tail.lastIndexOf(key); at > 0; at = tail.lastIndexOf(key, at - 1)) {
      let before = at - 1;
      while (before > 0 && (tail[before] as number) <= space) before--;
      if (tail[before] !== comma && tail[before] !== openBrace) continue;
      const members = Buffer.from(tail.subarray(at - 1));
      members[0] = openBrace;
      observer.reset(shape, 1);
      const flags = observer.onBody(members, 0, members.length);
      if ((flags & Observed.malformed) === 0) return { ...observer.usage };
    }
    return undefined;
  }
}
