/**
 * What a stored response is remembered under: 128 bits of a SHA-256 over whose it is and its id. Pure; any
 * thread.
 *
 * Ids are not secret and clients can send any: with a hash that can be steered, one tenant could make the
 * key of another's response. Tenants go in by name, because their places in the config change with it.
 */
import { Buffer } from 'node:buffer';
import { hash } from 'node:crypto';

/** int32 of a key, and of an owner. */
export const responseKeyWords = 4;
/** Engines give some 40 characters; what is longer is no id. */
export const responseIdMax = 256;

const digest = Buffer.alloc(32);

/** Whose the responses of a tenant are; '' where nobody is asked for a key. */
export function ownerOf(tenant: string): Int32Array {
  const owner = new Int32Array(responseKeyWords);
  if (tenant !== '') writeDigest(`tenant ${tenant}`, owner, 0);
  return owner;
}

/** Writes the key of `id` of the owner at `words[ownerAt]` to `key`. */
export function writeResponseKey(
  words: Int32Array,
  ownerAt: number,
  id: string,
  key: Int32Array,
): void {
  let owner = '';
  for (let i = 0; i < responseKeyWords; i++) owner += `${words[ownerAt + i] as number} `;
  writeDigest(owner + id, key, 0);
}

/** As a string a digest costs half of what a new buffer does. */
function writeDigest(text: string, words: Int32Array, at: number): void {
  digest.write(hash('sha256', text, 'binary'), 0, 'latin1');
  for (let i = 0; i < responseKeyWords; i++) words[at + i] = digest.readInt32LE(4 * i);
}
