/** The log of a thread: what it drops is counted in the thread's metrics. */
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { createLogger, type Logger, type LogLevel } from '../telemetry/log.ts';
import type { MetricsWriter } from './metrics.ts';
import type { ThreadLog } from './threads.ts';

/** `slowMs`: a request that took so long is in it whatever the sample; for threads that log requests. */
export function createThreadLog(
  thread: string,
  { level, sample, pretty }: ThreadLog,
  metrics: MetricsWriter,
  slowMs = Number.POSITIVE_INFINITY,
): Logger {
  return createLogger({
    ...{ thread, level: level as LogLevel, pretty, access: { rate: sample, slowMs } },
    onDrop: (lines) => metrics.add(catalogue.logDropped, 0, lines),
  });
}
