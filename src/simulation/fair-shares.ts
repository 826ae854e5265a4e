/**
 * Max-min fair division: nobody gets more than he wants, and what one leaves is shared by the others.
 * Pure.
 */

/** What each gets of `total`. */
export function fairShares(wanted: readonly number[], total: number): number[] {
  const shares = wanted.map(() => 0);
  const order = wanted.map((_, i) => i).sort((a, b) => (wanted[a] ?? 0) - (wanted[b] ?? 0));
  let left = total;
  order.forEach((who, rank) => {
    const share = Math.min(wanted[who] ?? 0, left / (order.length - rank));
    shares[who] = share;
    left -= share;
  });
  return shares;
}
