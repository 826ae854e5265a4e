/**
 * Entry of the tracer thread: reads what acceptors and forwarders have written of traced requests, makes
 * spans of it and sends them to a collector. It exists only with `tracing.endpoint`; OpenTelemetry is
 * loaded here and nowhere else.
 *
 * Nobody waits for this thread: while it is slow, dead or without a collector, records are dropped where
 * they are made and spans where they are sent, and both are counted. A successor reads on in the rings.
 */
import { nowMs } from '../lib/clock.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { SpanReader } from '../shm/span-records.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { ToThread, TracerStart } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Result } from '../telemetry/labels.ts';
import { openExport } from './export.ts';
import { SpanBuilder } from './spans.ts';

/** The rings hold what comes meanwhile. */
const pollMs = 100;
/** Of each ring in one turn, so that the collector is heard in between. */
const recordsPerTurn = 200;
/** The last spans have this long to get out; the main thread waits for 2 s. */
const flushMs = 1000;
const logCloseMs = 200;
/** The same complaint about the collector is not repeated sooner. */
const complaintMs = 60_000;

const port = new ThreadPort<TracerStart>('tracer');
const { start } = port;
const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
const logger = createThreadLog(port.name, start.log, metrics);

let complainedMs = Number.NEGATIVE_INFINITY;
const collector = await openExport(start, {
  sent: (spans) => metrics.add(catalogue.traceSpans, Result.ok, spans),
  lost: (spans, error) => {
    metrics.add(catalogue.traceSpans, Result.failed, spans);
    const ms = nowMs();
    if (ms - complainedMs < complaintMs) return;
    complainedMs = ms;
    logger.warn('spans are lost: the collector does not take them', { count: spans, err: error });
  },
});
const { models, scheme, version } = start;
const origin = { models, scheme, resource: collector.resource, scope: { name: 'sluice', version } };
const builder = new SpanBuilder(origin, collector.take);
const readers = start.rings.map((region) => new SpanReader(region));

/** True when a ring may hold more. */
function drain(): boolean {
  let isMore = false;
  builder.followClock();
  for (const reader of readers) {
    for (let count = 0; ; count++) {
      if (count === recordsPerTurn) {
        isMore = true;
        break;
      }
      const record = reader.next();
      if (record === undefined) break;
      if (collector.hasRoom) builder.build(record);
      else metrics.add(catalogue.traceSpans, Result.failed, 1);
    }
  }
  return isMore;
}

const timer = setInterval(drain, pollMs);

async function stop(): Promise<void> {
  clearInterval(timer);
  while (drain()) await new Promise((resolve) => setImmediate(resolve));
  await collector.close(flushMs);
  await logger.close(logCloseMs);
  port.stopped();
}

port.listen((message: ToThread) => {
  if (message.kind === 'stop') void stop();
});
port.post({ kind: 'ready' });
