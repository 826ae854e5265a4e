/**
 * Sizes of the blocks that the arena gives out: powers of two of at least 4 KiB. Pure.
 *
 * Apart from the arena because the config must know how much of it a body takes.
 */

/** log2 of 4 KiB: below it bookkeeping would outweigh the payload. */
export const blockOrderMin = 12;

/** log2 of the smallest block that holds `length` bytes. */
export function blockOrder(length: number): number {
  return length <= 1 << blockOrderMin ? blockOrderMin : 32 - Math.clz32(length - 1);
}
