/**
 * Every metric of the gateway, declared once: what is not here does not exist.
 *
 * Counters and histograms live in shared memory, one region per thread of `writers` (shm/metrics.ts),
 * and are summed at a scrape. Gauges are recounts by the main thread (gateway/metrics.ts).
 */

import { edgeMetrics } from './edge-metrics.ts';
import { genaiMetrics } from './genai-metrics.ts';
import {
  cancelBounds,
  decisionBounds,
  firstTokenBounds,
  interTokenBounds,
  overheadBounds,
  requestBounds,
} from './metric-bounds.ts';
import type { Metric, StoredMetric } from './metric-kinds.ts';
import { counter, gauge, histogram, stored } from './metric-makers.ts';
import { outsideMetrics } from './metrics-outside.ts';
import { tenantMetrics } from './tenant-metrics.ts';
import { threadMetrics } from './thread-metrics.ts';

export const metrics = {
  requests: counter(
    'sluice_requests_total',
    ['model', 'code'],
    ['acceptor'],
    'Requests answered, by the status the client got; 499 when it left before. One that failed behind keep-alive comments counts with the status it would have got without them.',
  ),
  requestsInFlight: gauge(
    'sluice_requests_in_flight',
    ['model'],
    'count',
    'Requests admitted and not settled: a recount of the slot table.',
  ),
  requestDuration: histogram(
    'sluice_request_duration_seconds',
    ['model'],
    ['acceptor'],
    requestBounds,
    'From the request line to the last byte handed to the client socket.',
  ),
  timeToFirstToken: histogram(
    'sluice_time_to_first_token_seconds',
    ['model'],
    ['acceptor', 'forwarder'],
    firstTokenBounds,
    'From the request line to the first content token of the answer.',
  ),
  interTokenLatency: histogram(
    'sluice_inter_token_latency_seconds',
    ['model'],
    ['acceptor', 'forwarder'],
    interTokenBounds,
    'Gap between two token events of one stream.',
  ),
  tokens: counter(
    'sluice_tokens_total',
    ['model', 'type'],
    ['acceptor', 'forwarder'],
    'Tokens by the usage the replica reported; cached is the part of input it had cached.',
  ),
  discardedTokens: counter(
    'sluice_discarded_tokens_total',
    ['model', 'type'],
    ['forwarder'],
    'Tokens of replies that `cascade.on_reply` discarded, as far as the replica reported them; no usage event and no limit of a tenant has them.',
  ),
  keepAliveComments: counter(
    'sluice_keep_alive_comments_total',
    [],
    ['acceptor'],
    'Comments sent to clients that waited for the first byte of a stream (`streams.keep_alive`).',
  ),
  streamTruncated: counter(
    'sluice_stream_truncated_total',
    ['model'],
    ['acceptor'],
    'Streams that ended with an error: without [DONE] or a finish_reason for every choice.',
  ),
  streamContinuations: counter(
    'sluice_stream_continuations_total',
    ['model', 'result'],
    ['scheduler', 'forwarder'],
    'Broken streams whose requests allow to continue them: those another replica went on with (ok), and those that ended with an error event (failed).',
  ),
  streamMalformedEvents: counter(
    'sluice_stream_malformed_events_total',
    ['model'],
    ['forwarder'],
    'Stream events that were not JSON and were left out.',
  ),

  queueDepth: gauge('sluice_queue_depth', ['model'], 'count', 'Requests waiting for a replica.'),
  // A part of the time to first token, so it takes those bounds; the ones of vLLM start at 300 ms.
  queueTime: histogram(
    'sluice_queue_time_seconds',
    ['model'],
    ['scheduler'],
    firstTokenBounds,
    'Time a request was held because no replica had room; 0 when it went straight through.',
  ),
  schedulingLatency: histogram(
    'sluice_scheduling_latency_seconds',
    [],
    ['scheduler'],
    overheadBounds,
    'From publication in the request ring to publication in the dispatch ring, queue hold excluded.',
  ),
  decision: histogram(
    'sluice_decision_seconds',
    [],
    ['scheduler'],
    decisionBounds,
    'Time the policy took to pick a replica.',
  ),
  schedulerDispatched: counter(
    'sluice_scheduler_dispatched_total',
    [],
    ['scheduler'],
    'Attempts handed to a forwarder.',
  ),
  schedulerDropped: counter(
    'sluice_scheduler_dropped_total',
    [],
    ['scheduler'],
    'Requests the scheduler refused or gave up: queue full, wait over, no routable replica.',
  ),
  overhead: histogram(
    'sluice_overhead_seconds',
    ['stage'],
    ['acceptor', 'scheduler', 'forwarder'],
    overheadBounds,
    'Time the gateway itself added to a request, by stage.',
  ),
  cancel: histogram(
    'sluice_cancel_seconds',
    [],
    ['acceptor', 'scheduler', 'forwarder'],
    cancelBounds,
    'From the client leaving to the abort of the replica connection.',
  ),

  replicaUp: gauge(
    'sluice_replica_up',
    ['replica', 'model'],
    'count',
    '1 while the replica is healthy; draining, pauses and weight 0 do not show here.',
  ),
  replicaInFlight: gauge(
    'sluice_replica_in_flight',
    ['replica', 'model'],
    'count',
    'Attempts running on the replica: the exact count the scheduler decides by.',
  ),
  replicaBreaker: gauge(
    'sluice_replica_breaker_state',
    ['replica', 'model'],
    'count',
    '0 while the replica is asked as any other, 1 while it is left out for what it did, 2 while single requests try it.',
  ),
  replicaEngineRunning: gauge(
    'sluice_replica_engine_running',
    ['replica', 'model'],
    'count',
    'Requests the engine of the replica says it runs, whoever sent them.',
  ),
  replicaEngineWaiting: gauge(
    'sluice_replica_engine_waiting',
    ['replica', 'model'],
    'count',
    'Requests the engine of the replica says it has waiting, whoever sent them.',
  ),
  replicaEngineKvUsage: gauge(
    'sluice_replica_engine_kv_usage_ratio',
    ['replica', 'model'],
    'ratio',
    'Share of the KV cache that the engine of the replica says is in use.',
  ),
  prefixQueries: counter(
    'sluice_prefix_cache_queries_total',
    ['model'],
    ['scheduler'],
    'Prompt tokens of attempts whose replica was chosen by what replicas are expected to have cached.',
  ),
  prefixHits: counter(
    'sluice_prefix_cache_hits_total',
    ['model'],
    ['scheduler'],
    'Those of them that the chosen replica was expected to have cached; what it had is in `sluice_tokens_total`.',
  ),
  replicaRequests: counter(
    'sluice_replica_requests_total',
    ['replica'],
    ['scheduler', 'forwarder'],
    'Attempts sent to the replica.',
  ),
  replicaErrors: counter(
    'sluice_replica_errors_total',
    ['replica'],
    ['scheduler', 'forwarder'],
    'Attempts on the replica that failed by its doing: dead, slow, truncated or 5xx.',
  ),
  replicaEjections: counter(
    'sluice_replica_ejections_total',
    ['replica'],
    ['scheduler'],
    'Times the replica was left out for what it did (`breaker`).',
  ),
  replicaRetries: counter(
    'sluice_replica_retries_total',
    ['replica'],
    ['scheduler'],
    'Attempts on the replica that were followed by one more on another.',
  ),
  fallbacks: counter(
    'sluice_fallbacks_total',
    ['model', 'cause'],
    ['scheduler'],
    'Requests that went on from the model to another one: no attempt there came to an answer, no replica, all busy, the queue was full or the wait in it over, the prompt too long, its reply a refusal or of low confidence.',
  ),
  hedges: counter(
    'sluice_hedges_total',
    [],
    ['scheduler'],
    'Second exchanges started beside the first of an attempt.',
  ),
  hedgesEnded: counter(
    'sluice_hedges_ended_total',
    ['end'],
    ['scheduler'],
    'What became of them: won, lost to the first exchange, failed before it, cancelled with the request.',
  ),
  batches: counter(
    'sluice_batches_total',
    ['replica'],
    ['forwarder'],
    'Calls to the replica that carried several completions.',
  ),
  batchedRequests: counter(
    'sluice_batched_requests_total',
    ['replica'],
    ['forwarder'],
    'Completions in those calls; over the calls, the mean size of a batch.',
  ),
  batchesFailed: counter(
    'sluice_batches_failed_total',
    ['replica'],
    ['forwarder'],
    'Those of the calls that came to nothing: refused, failed or answered wrongly. Their completions went again one by one.',
  ),
  replicaAdapters: gauge(
    'sluice_replica_adapters',
    ['replica', 'model'],
    'count',
    'LoRA adapters that the replica has.',
  ),
  loraLoads: counter(
    'sluice_lora_loads_total',
    ['replica', 'result'],
    ['main'],
    'LoRA adapters that the replica was asked to load because requests waited for them, by result.',
  ),
  loraEvictions: counter(
    'sluice_lora_evictions_total',
    ['replica'],
    ['main'],
    'LoRA adapters that the replica gave up for another one.',
  ),
  streamOptionsRefused: counter(
    'sluice_stream_options_refused_total',
    ['replica'],
    ['forwarder'],
    'Streams whose replica was asked once more, without the `stream_options` that `stream_usage` or `continuation` had added: it answered 400 or 422 and named them.',
  ),
  replicaHealthChecks: counter(
    'sluice_replica_health_checks_total',
    ['replica', 'result'],
    ['main'],
    'Health checks of the replica, by result.',
  ),

  ringFull: counter(
    'sluice_ring_full_total',
    ['ring'],
    ['acceptor', 'scheduler', 'forwarder'],
    'Writes refused because the ring was full.',
  ),
  ringDepth: gauge(
    'sluice_ring_depth',
    ['ring'],
    'count',
    'Records waiting in the rings of this kind; bytes for the response rings.',
  ),
  lateEvents: counter(
    'sluice_late_events_total',
    [],
    ['acceptor', 'scheduler', 'forwarder'],
    'Messages dropped because their attempt or generation was over.',
  ),
  inFlightLeaks: counter(
    'sluice_in_flight_leaks_total',
    [],
    ['scheduler'],
    'Attempts whose end was never told, found and released by the audit; each is a bug.',
  ),
  settleConflicts: counter(
    'sluice_settle_conflicts_total',
    [],
    ['acceptor', 'scheduler', 'forwarder'],
    'Settlements refused because the slot was already settled.',
  ),
  slotsInUse: gauge('sluice_slots_in_use', [], 'count', 'Request slots that are not free.'),
  arenaBytesInUse: gauge(
    'sluice_arena_bytes_in_use',
    [],
    'bytes',
    'Bytes of the request body arena that are taken.',
  ),
  ...edgeMetrics(),
  httpConnections: gauge('sluice_http_connections', [], 'count', 'Client connections open.'),
  connectionsRefused: counter(
    'sluice_connections_refused_total',
    [],
    ['acceptor'],
    'Client connections closed at once in the last stage of an overload.',
  ),
  ...outsideMetrics(),
  slowReadersCut: counter(
    'sluice_slow_readers_cut_total',
    ['reason'],
    ['acceptor'],
    'Clients cut because they took nothing of their answers: in an overload, or stalled for too long.',
  ),
  overloadStage: gauge(
    'sluice_overload_stage',
    ['resource'],
    'count',
    'What is given up for memory and descriptors: 0 nothing, 1 keep-alive, 2 new requests, 3 slow readers, 4 connections.',
  ),
  overloadPressure: gauge(
    'sluice_overload_pressure_ratio',
    ['resource'],
    'ratio',
    'Used share of the limit (`degrade`); 0 where there is none.',
  ),
  handlerErrors: counter(
    'sluice_handler_errors_total',
    [],
    ['acceptor'],
    'Exceptions caught by the wrapper around the acceptor handlers; each is a bug.',
  ),

  ...threadMetrics(),
  tokenCounts: counter(
    'sluice_token_counts_total',
    ['outcome'],
    ['acceptor'],
    'Questions to the tokenizer pool: counted; or not, because the gateway does not know how the engine reads the request, the queue was full, the time was over, or a thread failed. What is not counted is decided by an estimate, or answered by a replica.',
  ),
  storedResponses: counter(
    'sluice_stored_responses_total',
    ['event'],
    ['acceptor', 'forwarder'],
    'What happens to the table of stored responses: one was noted, pushed another one out, found no room, was deleted; a request was for one that is found, is not known, or whose replica was removed.',
  ),
  logDropped: counter(
    'sluice_log_dropped_total',
    [],
    ['main', 'acceptor', 'scheduler', 'forwarder', 'limiter'],
    'Log lines dropped because the sink was slow or failing.',
  ),
  configReloads: counter(
    'sluice_config_reloads_total',
    ['result'],
    ['main'],
    'Config reloads, by result; a failed one keeps the config in force.',
  ),
  restarts: counter(
    'sluice_restarts_total',
    ['result'],
    ['main'],
    'Restarts that overlap (SIGUSR2), by result: ok in the process that took over, failed in the one that stayed.',
  ),
  buildInfo: gauge(
    'sluice_build_info',
    ['version', 'node', 'engine'],
    'info',
    'Constant 1; the labels say what runs.',
  ),
  ...tenantMetrics(),
  ...genaiMetrics(),
} as const satisfies Record<string, Metric>;

/** Counters and histograms by id. */
export const storedMetrics: readonly StoredMetric[] = stored;
