/**
 * A token bucket in one number: the generic cell rate algorithm (ITU-T I.371). Pure.
 *
 * `tat`, the theoretical arrival time, is when the bucket is full again; one that lies in the past is a
 * full bucket. What `cost` units take moves it on by cost / rate. In any time t no more than
 * rate * t + max(burst, the largest cost) is let through: a cost beyond the burst passes a full bucket
 * and is paid off afterwards, for it could never pass otherwise.
 */

/** Microseconds until `cost` may pass; not above 0: now. `ratePerUs` and `burst` are above 0. */
export function waitUs(
  tat: number,
  nowUs: number,
  cost: number,
  ratePerUs: number,
  burst: number,
): number {
  const from = Math.max(tat, nowUs);
  return Math.min(from - nowUs, from + (cost - burst) / ratePerUs - nowUs);
}

/** The bucket after `cost` has passed, or has come back where it is below 0: never more than full. */
export function taken(tat: number, nowUs: number, cost: number, ratePerUs: number): number {
  return Math.max(nowUs, Math.max(tat, nowUs) + cost / ratePerUs);
}

/** The bucket under another rate: it lacks as many units as before. `fromPerUs` 0: it is by that rate. */
export function carried(tat: number, nowUs: number, fromPerUs: number, toPerUs: number): number {
  if (fromPerUs === toPerUs || fromPerUs === 0 || tat <= nowUs) return tat;
  return nowUs + ((tat - nowUs) * fromPerUs) / toPerUs;
}

/** Microseconds until the bucket is full. */
export const fullInUs = (tat: number, nowUs: number): number => Math.max(0, tat - nowUs);

/** What the bucket holds now. */
export function remaining(tat: number, nowUs: number, ratePerUs: number, burst: number): number {
  return Math.max(0, burst - fullInUs(tat, nowUs) * ratePerUs);
}
