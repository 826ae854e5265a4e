/**
 * API keys: where a request carries one, and what is kept of it. Pure; any thread.
 *
 * A key has 256 random bits, so a plain SHA-256 of it cannot be turned back by guessing, and a salt would
 * only forbid the lookup by digest.
 */
import { hash, randomBytes } from 'node:crypto';

/** Keys of other make may be longer; nothing beyond is a key. */
const keyLengthMax = 512;
export const digestBytes = 32;

const bearer = /^bearer +(\S+) *$/i;

/** The key in the headers of a request: a bearer token, else `x-api-key`; '' for none. */
export function keyOfHeaders(authorization: string, apiKey: string): string {
  const token = authorization === '' ? '' : (bearer.exec(authorization)?.[1] ?? '');
  const key = token === '' ? apiKey : token;
  return key.length > keyLengthMax ? '' : key;
}

/** Writes the SHA-256 of the key into `digest`; as a string it costs half of what a new buffer does. */
export function digestOfKey(key: string, digest: Buffer): void {
  digest.write(hash('sha256', key, 'binary'), 0, 'latin1');
}

/** A new one: 256 random bits behind a prefix that secret scanners can look for. */
export const newKey = (): string => `sk-sluice-${randomBytes(digestBytes).toString('base64url')}`;

/** As the config has it. */
export const sha256Of = (key: string): string => hash('sha256', key, 'hex');
