/** What tokens cost. Pure. */

/** Of a million tokens each. */
export interface Price {
  readonly input: number;
  readonly cachedInput: number;
  readonly output: number;
}

/** Amounts are whole billionths, so that a sum of them is exact and the same in every order. */
const billion = 1e9;
const perToken = 1e6;

/** What they cost, in billionths; `cached` is the part of `input` that the replica had in its cache. */
export function costInBillionths(
  price: Price,
  input: number,
  cached: number,
  output: number,
): number {
  const fromCache = Math.min(cached, input);
  const fresh = input - fromCache;
  const sum = fresh * price.input + fromCache * price.cachedInput + output * price.output;
  return Math.round((sum * billion) / perToken);
}

export const inBillionths = (amount: number): number => Math.round(amount * billion);
export const fromBillionths = (amount: number): number => amount / billion;
