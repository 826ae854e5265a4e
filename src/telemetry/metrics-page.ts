/** The metrics page of the documentation, generated from the catalogue. Pure. */
import { metrics } from './catalogue.ts';
import { fixedLabelValues, labelName, type SeriesLabel } from './labels.ts';
import { isStored, type Metric } from './metric-kinds.ts';

export function metricsMarkdown(): string {
  const all: readonly Metric[] = Object.values(metrics);
  return `${[
    '# Metrics',
    '',
    '`GET /metrics` on the admin port, Prometheus text format 0.0.4. Generated from',
    '`src/telemetry/catalogue.ts`; `process_*` and `nodejs_*` come from prom-client and are about the',
    'main thread and the gateway process.',
    '',
    'Counters and histograms are counted by each thread in memory of its own and summed at the scrape;',
    'they survive the restart of a thread. Gauges are recounts made at the scrape by the main thread.',
    'Labels are closed sets: a model without a row of its own counts as `other`, and so does a tenant',
    'past the first `metrics.tenants`. What begins with `gen_ai_` is there with `metrics.genai` alone.',
    '',
    'Names that dashboards of other gateways may look for: how often a replica was selected is',
    '`sluice_replica_requests_total`, as the policy is that of its model; what an engine has waiting is',
    '`sluice_replica_engine_waiting`; connections to the listener are `sluice_http_connections`.',
    '',
    '| metric | type | labels | unit | counted by | meaning |',
    '|---|---|---|---|---|---|',
    ...all.map(metricRow),
    '',
    '## Buckets',
    '',
    'Upper bounds in seconds, those of `gen_ai_client_token_usage` in tokens; `+Inf` follows. Those of',
    'tokens and requests are the bounds of vLLM, those of `gen_ai_` what its conventions advise.',
    '',
    '| metric | bounds |',
    '|---|---|',
    ...all.flatMap((metric) =>
      metric.kind === 'histogram' ? [`| \`${metric.name}\` | ${metric.bounds.join(' ')} |`] : [],
    ),
    '',
    '## Label values',
    '',
    '| label | values |',
    '|---|---|',
    ...Object.entries(fixedLabelValues).map(
      ([label, values]) => `| ${titleOf(label as SeriesLabel)} | ${values.join(' ')} |`,
    ),
  ].join('\n')}\n`;
}

/** The label, and whose it is where other metrics have one of that name with values of their own. */
function titleOf(label: SeriesLabel): string {
  const shown = labelName(label);
  if (shown === label) return label;
  const names = Object.values<Metric>(metrics).flatMap((metric) =>
    isStored(metric) && metric.series.includes(label) ? [`\`${metric.name}\``] : [],
  );
  return `${shown} of ${names.join(', ')}`;
}

function metricRow(metric: Metric): string {
  const writers = isStored(metric) ? metric.writers.join(', ') : 'main, at the scrape';
  const labels = metric.labels.length > 0 ? metric.labels.join(', ') : '-';
  return `| \`${metric.name}\` | ${metric.kind} | ${labels} | ${metric.unit} | ${writers} | ${metric.help} |`;
}
