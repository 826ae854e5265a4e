/** What the prefix index promises of the replicas that are chosen. Scheduler thread; allocates nothing. */
import type { Choice } from '../dispatch/choice.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';

export function countPrefix(
  counters: MetricsWriter,
  model: number,
  { isMatched, request, index }: Choice,
): void {
  if (!isMatched) return;
  counters.add(metrics.prefixQueries, model, request.promptTokens);
  counters.add(metrics.prefixHits, model, request.matched[index] as number);
}
