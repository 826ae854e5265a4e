/**
 * Metrics of what the gateway tells others and asks of them: the store of shared limits, the servers that
 * get usage events, the collector of traces. Part of the catalogue.
 */
import { overheadBounds } from './metric-bounds.ts';
import { counter, gauge, histogram } from './metric-makers.ts';

/** Made where the catalogue names them: a metric's id is its place there. */
export const outsideMetrics = () => ({
  limitStoreCalls: counter(
    'sluice_limit_store_calls_total',
    ['result'],
    ['limiter'],
    'Calls to the store of shared limits; `failed`: no answer in time.',
  ),
  limitStoreCall: histogram(
    'sluice_limit_store_call_seconds',
    [],
    ['limiter'],
    overheadBounds,
    'How long such calls took.',
  ),
  limitStoreUp: gauge(
    'sluice_limit_store_up',
    [],
    'count',
    '1 while the store of shared limits answers; 0 while it does not, and where there is none.',
  ),
  budgetStoreCalls: counter(
    'sluice_budget_store_calls_total',
    ['result'],
    ['ledger'],
    'Calls about shared budgets, one for each tenant; `failed`: no answer in time, or refused.',
  ),
  budgetStoreUp: gauge(
    'sluice_budget_store_up',
    [],
    'count',
    '1 while the store says what other gateways have spent; 0 while it does not, and where there is none.',
  ),
  usageDropped: counter(
    'sluice_usage_dropped_total',
    [],
    ['acceptor'],
    'Usage events lost because their file could not be written for too long.',
  ),
  usageSinkEvents: counter(
    'sluice_usage_sink_events_total',
    ['sink', 'result'],
    ['ledger'],
    'Usage events sent to a sink: stored, or not known to be and sent again.',
  ),
  usageSinkLost: counter(
    'sluice_usage_sink_lost_total',
    ['sink'],
    ['ledger'],
    'Usage events a sink never got because their file was deleted before (`usage.keep`).',
  ),
  usageSinkWaiting: gauge(
    'sluice_usage_sink_waiting',
    ['sink'],
    'count',
    'Usage events in the files that the sink does not have for sure.',
  ),
  usageSinkLag: gauge(
    'sluice_usage_sink_lag_seconds',
    ['sink'],
    'seconds',
    'Age of the oldest of the usage events that wait for the sink; 0 when none does.',
  ),
  tracesSkipped: counter(
    'sluice_traces_skipped_total',
    [],
    ['acceptor'],
    'Sampled requests that are not traced because more of them came than `tracing.max_per_second`.',
  ),
  traceRecordsDropped: counter(
    'sluice_trace_records_dropped_total',
    [],
    ['acceptor', 'forwarder'],
    'Records of traced requests lost because the tracer did not take them in time.',
  ),
  traceSpans: counter(
    'sluice_trace_spans_total',
    ['result'],
    ['tracer'],
    'Spans sent to the collector, and those lost because it did not take them in time.',
  ),
});
