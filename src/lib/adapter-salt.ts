/** Blocks in a KV cache belong to one adapter: hashes of equal prompts of two must not look alike. Pure. */

/** Goes over one word of a hash by exclusive or, and off it the same way; nothing for no adapter. */
export const adapterSalt = (adapter: number): number => Math.imul(adapter, 0x9e3779b1);

/** Hashes of two words each, `count` words in all, go from one adapter to another; 0 0 is no hash. */
export function moveHashes(
  words: Int32Array,
  at: number,
  count: number,
  from: number,
  to: number,
): void {
  const change = adapterSalt(from) ^ adapterSalt(to);
  for (let i = at; i < at + count; i += 2) {
    const [low, high] = [words[i] as number, words[i + 1] as number];
    if (low === 0 && high === 0) continue;
    words[i] = low ^ change;
    words[i + 1] = high ^ change;
  }
}
