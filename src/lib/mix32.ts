/** The finaliser of MurmurHash3: every input bit reaches every output bit. An int32, as it comes out. */
export function mix32(word: number): number {
  const half = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  const most = Math.imul(half ^ (half >>> 13), 0xc2b2ae35);
  return most ^ (most >>> 16);
}
