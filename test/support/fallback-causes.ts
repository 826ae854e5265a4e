/** Why requests went on to another model, as a gateway counts it. */
import type { GatewayProcess } from './gateway.ts';

/** `sluice_fallbacks_total` by cause, over all models; those that have happened. */
export async function fallbackCauses(gateway: GatewayProcess): Promise<Record<string, number>> {
  const { samples } = (await gateway.metrics()).get('sluice_fallbacks_total')!;
  const counts: Record<string, number> = {};
  for (const [labels, count] of samples) {
    const cause = /cause="(\w+)"/.exec(labels)?.[1] ?? '';
    if (count > 0) counts[cause] = (counts[cause] ?? 0) + count;
  }
  return counts;
}
