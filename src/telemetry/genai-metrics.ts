/**
 * The metrics of OpenTelemetry's conventions for GenAI, part of the catalogue, under the names that
 * Prometheus gives them. Counted and shown with `metrics.genai` alone.
 */
import { histogram } from './metric-makers.ts';

export const genaiPrefix = 'gen_ai_';

/** As the conventions advise. */
const durationBounds = [
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
const firstTokenBounds = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];
const perTokenBounds = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
const tokenBounds = Array.from({ length: 14 }, (_, power) => 4 ** power);

export const genaiMetrics = () => ({
  genaiDuration: histogram(
    'gen_ai_server_request_duration_seconds',
    ['gen_ai_request_model', 'gen_ai_operation_name', 'error_type'],
    ['acceptor'],
    durationBounds,
    'GenAI server request duration: from the request line to the last byte handed to the client socket; `error_type` is there where it failed (metrics.genai).',
  ),
  genaiFirstToken: histogram(
    'gen_ai_server_time_to_first_token_seconds',
    ['gen_ai_request_model', 'gen_ai_operation_name'],
    ['acceptor'],
    firstTokenBounds,
    'Time to the first token of a stream that ended well (metrics.genai).',
  ),
  genaiPerToken: histogram(
    'gen_ai_server_time_per_output_token_seconds',
    ['gen_ai_request_model', 'gen_ai_operation_name'],
    ['acceptor'],
    perTokenBounds,
    'Time per output token after the first one, of a stream that ended well (metrics.genai).',
  ),
  genaiTokens: histogram(
    'gen_ai_client_token_usage',
    ['gen_ai_request_model', 'gen_ai_operation_name', 'gen_ai_token_type'],
    ['acceptor'],
    tokenBounds,
    'Input and output tokens used by each request (metrics.genai).',
    'count',
  ),
});
