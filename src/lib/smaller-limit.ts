/** Of two limits the one that holds; 0 is no limit. Pure. */
export const smallerLimit = (a: number, b: number): number =>
  a === 0 || b === 0 ? a + b : Math.min(a, b);
