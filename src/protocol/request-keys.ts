/**
 * What stands for a client and a session in the numbers that the scheduler decides by. Pure;
 * any thread; no allocation.
 */
import { mix32 } from '../lib/mix32.ts';

/** Lanes of fair queueing per model; keys of clients are spread over them by their hash. */
export const tenantLanes = 256;

const keyHash = new Int32Array(2);

/**
 * The lane of a key, 1 to tenantLanes - 1; 0 without one. Keys that share a lane share its turns, so a
 * flood of made-up keys gains lanes, never all.
 */
export function tenantLane(key: string): number {
  if (key === '') return 0;
  hashSession(key, keyHash, 0);
  // FNV alone leaves keys that differ in their last digits in a quarter of the lanes.
  return 1 + ((mix32((keyHash[0] as number) ^ (keyHash[1] as number)) >>> 0) % (tenantLanes - 1));
}

/** The lane of the tenant of that index: its own as long as there are no more tenants than lanes. */
export const laneOfTenant = (tenant: number): number => 1 + (tenant % (tenantLanes - 1));

/**
 * FNV-1a, 64 bits, of the UTF-16 units of the key (low byte, then high byte where it is not 0), as two
 * int32: low, high. No key: 0 0. Multiplication by 2^40 + 0x1b3 in halves of 32 and 16 bits.
 */
export function hashSession(key: string, words: Int32Array, at: number): void {
  let low = 0;
  let high = 0;
  if (key !== '') {
    low = 0x84222325 | 0;
    high = 0xcbf29ce4 | 0;
  }
  for (let i = 0; i < key.length; i++) {
    const unit = key.charCodeAt(i);
    for (let byte = unit, more = true; more; byte >>>= 8) {
      low ^= byte & 0xff;
      const lowProduct = (low & 0xffff) * 0x1b3;
      const midProduct = (low >>> 16) * 0x1b3 + (lowProduct >>> 16);
      high = (Math.imul(high, 0x1b3) + (midProduct >>> 16) + (low << 8)) | 0;
      low = (midProduct << 16) | (lowProduct & 0xffff);
      more = byte > 0xff;
    }
  }
  words[at] = low;
  words[at + 1] = high;
}
