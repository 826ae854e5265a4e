/**
 * The way to the collector: OpenTelemetry's batches and OTLP exporter, bounded and counted. Tracer thread;
 * loads the packages.
 *
 * Spans that wait or are on their way are at most `spansMax`: past it nothing is made, so neither memory
 * nor the batch queue of OpenTelemetry, which drops without telling, can fill.
 */
import type { Resource } from '@opentelemetry/resources';
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace';
import type { TracerStart } from '../shm/threads.ts';

const spansMax = 4096;
const batchSpans = 512;
const batchMs = 1000;
/** A batch has this long, its retries included. */
const exportMs = 5000;
/** Requests to the collector at one time. */
const concurrency = 2;

interface Counted {
  sent(spans: number): void;
  lost(spans: number, error: unknown): void;
}

interface Export {
  readonly resource: Resource;
  /** Room for the spans of a record. */
  readonly hasRoom: boolean;
  take(span: ReadableSpan): void;
  close(limitMs: number): Promise<void>;
}

type ExportResult = Parameters<Parameters<SpanExporter['export']>[1]>[0];

/** ExportResultCode.SUCCESS, of a package that is not among our dependencies. */
const succeeded = 0;

type ExportStart = Pick<TracerStart, 'endpoint' | 'headers' | 'serviceName' | 'version'>;

export async function openExport(start: ExportStart, counted: Counted): Promise<Export> {
  const [sdk, otlp, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-proto'),
    import('@opentelemetry/resources'),
  ]);
  const inner = new otlp.OTLPTraceExporter({
    url: start.endpoint,
    headers: { ...start.headers },
    timeoutMillis: exportMs,
    concurrencyLimit: concurrency,
  });
  let open = 0;
  const exporter: SpanExporter = {
    export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
      inner.export(spans, (result) => {
        open -= spans.length;
        if (result.code === succeeded) counted.sent(spans.length);
        else counted.lost(spans.length, result.error);
        done({ code: succeeded }); // a failure is told above; OpenTelemetry would write it to standard error
      });
    },
    shutdown: () => inner.shutdown(),
  };
  const batches = new sdk.BatchSpanProcessor({
    exporter,
    maxQueueSize: spansMax,
    maxExportBatchSize: batchSpans,
    scheduledDelayMillis: batchMs,
    exportTimeoutMillis: 2 * exportMs,
  });
  return {
    resource: resourceFromAttributes({
      'service.name': start.serviceName,
      'service.version': start.version,
    }),
    take(span) {
      open++;
      batches.onEnd(span);
    },
    get hasRoom() {
      return open < spansMax - 2; // a record makes two spans at most
    },
    async close(limitMs) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, limitMs);
      });
      await Promise.race([batches.shutdown().catch(() => {}), late]);
      clearTimeout(timer);
      if (open > 0) counted.lost(open, new Error('the gateway stopped'));
    },
  };
}
