/**
 * Covers what the gateway says for itself (its key, headers of the config) where a replica repeats it in
 * what it finds wrong with a request: that body is for the client, who is not to know. Forwarder threads; pure.
 *
 * As long as what they cover, so that lengths stay. What may be the beginning of a secret waits for what
 * follows. The longest is looked for first: another one may be a part of it.
 */
import { Buffer } from 'node:buffer';
import { noBytes } from '../lib/no-bytes.ts';

/** A shorter one is no secret, and would be found in words. */
const secretBytesMin = 8;
const star = 0x2a;

export class KeyMask {
  readonly #covers: readonly Cover[];

  private constructor(covers: readonly Cover[]) {
    this.#covers = covers;
  }

  /** Undefined where there is nothing to cover. */
  static of(secrets: readonly string[]): KeyMask | undefined {
    const long = [...new Set(secrets)].map((secret) => Buffer.from(secret));
    const covers = long
      .filter(({ length }) => length >= secretBytesMin)
      .sort((a, b) => b.length - a.length)
      .map((secret) => new Cover(secret));
    return covers.length === 0 ? undefined : new KeyMask(covers);
  }

  /** What of the body may pass, in a buffer of its own. */
  push(chunk: Uint8Array): Uint8Array {
    return this.#covers.reduce((bytes, cover) => cover.push(bytes), chunk);
  }

  /** The rest: nothing follows. */
  finish(): Uint8Array {
    return this.#covers.reduce<Uint8Array>(
      (rest, cover) => Buffer.concat([cover.push(rest), cover.finish()]),
      noBytes,
    );
  }
}

/** Of one secret. */
class Cover {
  readonly #secret: Buffer;
  #held: Uint8Array = noBytes;

  constructor(secret: Buffer) {
    this.#secret = secret;
  }

  push(chunk: Uint8Array): Uint8Array {
    const secret = this.#secret;
    const bytes = Buffer.concat([this.#held, chunk]);
    for (let at = bytes.indexOf(secret); at >= 0; at = bytes.indexOf(secret, at + secret.length)) {
      bytes.fill(star, at, at + secret.length);
    }
    const end = bytes.length - this.#beginningAt(bytes);
    this.#held = bytes.subarray(end);
    return bytes.subarray(0, end);
  }

  finish(): Uint8Array {
    const rest = this.#held;
    this.#held = noBytes;
    return rest;
  }

  /** How many of the last bytes may be the first of the secret. */
  #beginningAt(bytes: Buffer): number {
    for (let count = Math.min(this.#secret.length - 1, bytes.length); count > 0; count--) {
      if (bytes.subarray(bytes.length - count).equals(this.#secret.subarray(0, count)))
        return count;
    }
    return 0;
  }
}
