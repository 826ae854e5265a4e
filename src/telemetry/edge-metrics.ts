/**
 * What the edge of the gateway answers, and whom it turns away and why. Part of the catalogue; counted by
 * acceptors, which give every answer.
 */
import { httpBounds, interTokenBounds } from './metric-bounds.ts';
import { counter, gauge, histogram } from './metric-makers.ts';

/** Made where the catalogue names them: a metric's id is its place there. */
export const edgeMetrics = () => ({
  httpRequests: counter(
    'sluice_http_requests_total',
    ['route', 'method', 'code'],
    ['acceptor'],
    'Requests of the listener that were answered, those of the gateway itself and unknown ones too; code as in `sluice_requests_total`.',
  ),
  httpDuration: histogram(
    'sluice_http_request_duration_seconds',
    ['route'],
    ['acceptor'],
    httpBounds,
    'From the request line to the last byte handed to the client socket, by route.',
  ),
  timePerOutputToken: histogram(
    'sluice_time_per_output_token_seconds',
    ['model'],
    ['acceptor'],
    interTokenBounds,
    'Time per output token after the first one, of a stream that ended well and whose usage is known.',
  ),
  shed: counter(
    'sluice_shed_total',
    ['model', 'shed_reason'],
    ['acceptor'],
    'Requests turned away for want of room: the queue was full or the wait in it over, others have priority, the deadline cannot be met, memory, slots or a ring are used up, or the rate limits of the replicas.',
  ),
  limitDecisions: counter(
    'sluice_ratelimit_decisions_total',
    ['tenant', 'dimension', 'limit_result'],
    ['acceptor'],
    'Requests of tenants that have limits or a budget: allowed by all of them, or refused for one. Requests that are refused earlier for something else are not counted.',
  ),
  limitRemaining: gauge(
    'sluice_ratelimit_remaining',
    ['tenant', 'dimension'],
    'count',
    'What the tenant has left at this moment of its requests, input_tokens and output_tokens per minute and its concurrency, over all models.',
  ),
  limitModelRemaining: gauge(
    'sluice_ratelimit_model_remaining',
    ['tenant', 'model', 'dimension'],
    'count',
    'The same of its `model_limits`: what it has left for requests of the model, which count in both.',
  ),
});
