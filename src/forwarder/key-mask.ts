/**
 * Covers the gateway's own key where a replica repeats it in what it finds wrong with a request: that
 * body is for the client, who is not to know the key. Forwarder threads; pure.
 *
 * As long as the key, so that lengths stay. What may be the beginning of the key waits for what follows.
 */
import { Buffer } from 'node:buffer';
import { noBytes } from '../lib/no-bytes.ts';

/** A shorter one is no secret, and would be found in words. */
const keyBytesMin = 8;
const star = 0x2a;

export class KeyMask {
  readonly #key: Buffer;
  #held: Uint8Array = noBytes;

  private constructor(key: Buffer) {
    this.#key = key;
  }

  /** Undefined where there is nothing to cover. */
  static of(key: string): KeyMask | undefined {
    const bytes = Buffer.from(key);
    return bytes.length < keyBytesMin ? undefined : new KeyMask(bytes);
  }

  /** What of the body may pass, in a buffer of its own. */
  push(chunk: Uint8Array): Uint8Array {
    const key = this.#key;
    const bytes = Buffer.concat([this.#held, chunk]);
    for (let at = bytes.indexOf(key); at >= 0; at = bytes.indexOf(key, at + key.length)) {
      bytes.fill(star, at, at + key.length);
    }
    const end = bytes.length - this.#beginningAt(bytes);
    this.#held = bytes.subarray(end);
    return bytes.subarray(0, end);
  }

  /** The rest: nothing follows. */
  finish(): Uint8Array {
    const rest = this.#held;
    this.#held = noBytes;
    return rest;
  }

  /** How many of the last bytes may be the first of the key. */
  #beginningAt(bytes: Buffer): number {
    for (let count = Math.min(this.#key.length - 1, bytes.length); count > 0; count--) {
      if (bytes.subarray(bytes.length - count).equals(this.#key.subarray(0, count))) return count;
    }
    return 0;
  }
}
