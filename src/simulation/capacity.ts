/**
 * Capacity: the highest rate at which a policy has a wanted goodput, in percent. Pure.
 *
 * Goodput falls as the rate rises, so the rate is found by halving between two rates.
 */

export function capacityOf(
  goodputAt: (rate: number) => number,
  goodput: number,
  low: number,
  high: number,
  steps: number,
): number {
  let [met, missed] = [low, high];
  for (let step = 0; step < steps; step++) {
    const middle = (met + missed) / 2;
    if (goodputAt(middle) >= goodput) met = middle;
    else missed = middle;
  }
  return met;
}
