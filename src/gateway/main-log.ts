/** The log of the main thread; what it cannot write is counted. */
import type { Config } from '../config/schema.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { createLogger, type Logger, type LogLevel } from '../telemetry/log.ts';
import { wantsPretty } from './start-data.ts';

export function createMainLog(log: Config['log'], writer: MetricsWriter): Logger {
  return createLogger({
    thread: 'main',
    level: log.level as LogLevel,
    pretty: wantsPretty(log.pretty),
    access: { rate: log.sample, slowMs: Number.POSITIVE_INFINITY },
    onDrop: (lines) => writer.add(metrics.logDropped, 0, lines),
  });
}
