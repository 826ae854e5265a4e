/** The log of a thread that writes no lines of requests: what it drops is counted in the thread's metrics. */
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { createLogger, type Logger, type LogLevel } from '../telemetry/log.ts';
import type { MetricsWriter } from './metrics.ts';

export function createThreadLog(
  thread: string,
  log: { readonly level: string; readonly sample: number; readonly pretty: boolean },
  metrics: MetricsWriter,
): Logger {
  return createLogger({
    thread,
    level: log.level as LogLevel,
    pretty: log.pretty,
    access: { rate: log.sample, slowMs: Number.POSITIVE_INFINITY },
    onDrop: (lines) => metrics.add(catalogue.logDropped, 0, lines),
  });
}
