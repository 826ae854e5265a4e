/**
 * Request ids: validity and generation. Any thread; never blocks.
 *
 * Ids are UUIDv7 (RFC 9562): sortable by wall-clock millisecond, with 74 random bits. Random bytes
 * are drawn from the system 4 KiB at a time, which makes an id cost less than a microsecond.
 */
import { Buffer } from 'node:buffer';
import { randomFillSync } from 'node:crypto';

const requestIdPattern = /^[A-Za-z0-9._-]{1,128}$/;

/** True when a client's `x-request-id` may be echoed, logged and forwarded. */
export function validRequestId(id: string): boolean {
  return requestIdPattern.test(id);
}

const randomBytesPerId = 10;
const pool = Buffer.allocUnsafeSlow(randomBytesPerId * 400);
let poolUsed = pool.length;
const id = Buffer.allocUnsafeSlow(16);

/** A new UUIDv7; `wallMs` is wall-clock time, because ids are compared across machines. */
export function uuidv7(wallMs: number = Date.now()): string {
  if (poolUsed === pool.length) {
    randomFillSync(pool);
    poolUsed = 0;
  }
  id.writeUIntBE(wallMs, 0, 6);
  pool.copy(id, 6, poolUsed, poolUsed + randomBytesPerId);
  poolUsed += randomBytesPerId;
  id[6] = 0x70 | ((id[6] as number) & 0x0f);
  id[8] = 0x80 | ((id[8] as number) & 0x3f);
  const hex = id.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
