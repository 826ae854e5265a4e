/**
 * The one catalogue of errors. Pure data; any thread.
 *
 * A number crosses threads in place of the entry and is never reused for another meaning. `retry`
 * says whether another replica may be asked: it is set here, where the cause is known, and nowhere
 * else. `flag` is the Envoy response flag that the access log prints.
 */

import { client, type Entry, type ErrorEntry, entry, gateway, upstream } from './entry.ts';
import { requestRows } from './request-rows.ts';
import { tenantRows } from './tenant-rows.ts';

export type { ErrorEntry } from './entry.ts';

const rows = {
  BAD_FRAMING: client(1, 400, 'bad_request_framing', 'DPE', {
    message: 'The request framing is not acceptable.',
    hint: 'A framing header is duplicated, empty, contradictory or malformed.',
  }),
  BAD_JSON: client(2, 400, 'invalid_json', 'DPE', {
    message: 'The request body is not a valid JSON object.',
    hint: 'The body must be one JSON object without a byte order mark or trailing bytes.',
  }),
  JSON_TOO_DEEP: client(3, 400, 'json_too_deep', 'DPE', {
    message: 'The request body is nested too deeply.',
    hint: 'Arrays and objects may nest 128 levels deep.',
  }),
  JSON_TOO_MANY_KEYS: client(4, 400, 'json_too_many_keys', 'DPE', {
    message: 'The request body has too many keys.',
    hint: 'An object may have 1,024 keys at the top level and 250,000 in all.',
  }),
  DUPLICATE_KEY: client(5, 400, 'duplicate_key', 'DPE', {
    message: 'A key that decides routing or cost appears twice in the request body.',
    hint: 'Parsers disagree on which of two equal keys counts, so neither does.',
  }),
  INVALID_PARAM: client(6, 400, 'invalid_type', 'DPE', {
    message: 'A parameter of the request body has the wrong type.',
    hint: '`param` names it.',
  }),
  MEDIA_NOT_ALLOWED: client(14, 400, 'media_not_allowed', 'DPE', {
    message: 'The request names media that the model may not fetch; send them as data: URLs.',
    hint: 'Or allow their hosts in `allowed_media_domains` of the model.',
  }),
  MODEL_REQUIRED: client(7, 400, 'missing_required_parameter', 'DPE', {
    message: 'The request body must name a model.',
    hint: 'Set `model` to one of the names of GET /v1/models.',
    param: 'model',
  }),
  NOT_UTF8: client(8, 400, 'invalid_utf8', 'DPE', {
    message: 'The request body is not valid UTF-8.',
    hint: 'JSON is UTF-8 (RFC 8259, section 8.1).',
  }),
  BAD_MULTIPART: client(9, 400, 'invalid_multipart', 'DPE', {
    message: 'The multipart body is not acceptable.',
    hint: 'Boundary, part headers or the number of parts are out of bounds.',
  }),
  BAD_HEADER: client(10, 400, 'invalid_header', 'DPE', {
    message: 'A request header has a value that is not acceptable.',
    hint: '`param` names the header.',
  }),
  CONTENT_ENCODING: client(11, 415, 'unsupported_content_encoding', 'DPE', {
    message: 'Compressed request bodies are not accepted.',
    hint: 'Send the body without content-encoding.',
  }),
  EXPECTATION: client(12, 417, 'expectation_failed', 'DPE', {
    message: 'The only expectation that can be met is 100-continue.',
    hint: 'Remove the Expect header.',
  }),
  REQUEST_TIMEOUT: client(13, 408, 'request_timeout', 'DPE', {
    message: 'The request did not arrive in time.',
    hint: 'Headers or body came too slowly.',
  }),
  MODEL_NOT_FOUND: client(22, 404, 'model_not_found', 'NR', {
    message: 'The model does not exist; GET /v1/models lists those that do.',
    hint: 'Names, aliases, adapters and splits of the config, as far as the key may use them.',
    param: 'model',
  }),
  ROUTE_NOT_FOUND: client(23, 404, 'unknown_url', 'NR', {
    message: 'Unknown request URL.',
    hint: 'Routes are matched exactly: no double slashes, dot segments or percent-encoding.',
  }),
  METHOD_NOT_ALLOWED: client(24, 405, 'method_not_allowed', 'NR', {
    message: 'This URL does not support this method.',
    hint: 'The `allow` response header lists the methods.',
  }),
  LENGTH_REQUIRED: client(25, 411, 'length_required', 'DPE', {
    message: 'A request with a body must say how long it is.',
    hint: 'Send content-length or transfer-encoding: chunked.',
  }),
  BODY_TOO_LARGE: client(26, 413, 'body_too_large', 'DPE', {
    message: 'The request body is too large.',
    hint: 'The limit is `listen.max_body`.',
    type: 'request_too_large',
  }),
  HEADERS_TOO_LARGE: client(27, 431, 'headers_too_large', 'DPE', {
    message: 'The request headers are too large.',
    hint: 'Fewer or smaller headers.',
  }),
  QUEUE_FULL: gateway(31, 429, 'rate_limit_exceeded', 'UO', {
    message: 'Too many requests are waiting for this model.',
    hint: 'The queue of the model holds `queue.max` requests.',
    type: 'requests',
    retryAfterS: 1,
  }),
  DEADLINE_TOO_SOON: gateway(32, 429, 'deadline_unreachable', 'DT', {
    message: 'The first token would come after the deadline of the request.',
    hint: 'Predicted from the prompts that wait and those being read; allow more time or come back.',
    retryAfterS: 1,
  }),
  SHED: gateway(33, 503, 'shed', 'OM', {
    message: 'Requests of low priority are turned away while the replicas are full.',
    hint: 'Its `x-sluice-priority` is below that of those who wait.',
    retryAfterS: 2,
  }),
  ARENA_FULL: gateway(40, 503, 'body_memory_full', 'UO', {
    message: 'The gateway has no memory left for another request body.',
    hint: '`memory.arena` is used up by requests in flight.',
    retryAfterS: 1,
  }),
  SLOTS_FULL: gateway(41, 503, 'slots_full', 'UO', {
    message: 'The gateway carries as many requests as it can.',
    hint: '`memory.slots` is used up by requests in flight.',
    retryAfterS: 1,
  }),
  RING_FULL: gateway(42, 503, 'ring_full', 'UO', {
    message: 'The gateway is overloaded.',
    hint: 'An internal ring is full: a thread is slow or stalled.',
    retryAfterS: 1,
  }),
  NO_REPLICA: gateway(43, 503, 'no_replica', 'UH', {
    message: 'No replica of this model can take a request.',
    hint: 'All replicas are unhealthy, draining, removed or left out because their answers failed.',
    retryAfterS: 2,
  }),
  QUEUE_TIMEOUT: gateway(44, 503, 'queue_timeout', 'UO', {
    message: 'The request waited too long for a replica.',
    hint: '`timeouts.queue`, or half of its deadline, passed before a replica was free; no replica has seen the request.',
    retryAfterS: 2,
  }),
  DRAINING: gateway(45, 503, 'draining', 'UO', {
    message: 'The gateway is shutting down.',
    hint: 'Another gateway behind the same address takes new requests.',
    retryAfterS: 1,
  }),
  SHUTTING_DOWN: gateway(46, 503, 'shutting_down', 'UO', {
    message: 'The gateway stopped before the request was complete.',
    hint: 'The drain limit passed or a second signal arrived.',
    retryAfterS: 1,
  }),
  INTERNAL: gateway(49, 500, 'internal_error', 'LR', {
    message: 'The gateway failed to handle the request.',
    hint: 'A defect of the gateway; its log has the stack.',
    type: 'server_error',
  }),
  FORWARDER_LOST: entry(
    'gateway',
    'beforeFirstByte',
    50,
    503,
    'server_error',
    'thread_lost',
    'LR',
    {
      message: 'The thread of the gateway that carried the answer has ended.',
      hint: 'A defect of the gateway; its log has the cause. The replica is not to blame.',
      retryAfterS: 1,
    },
  ),
  OVERLOADED: gateway(51, 503, 'gateway_overloaded', 'OM', {
    message: 'The gateway is short of memory.',
    hint: '`degrade.memory`: new requests are refused until it has some again.',
    retryAfterS: 2,
  }),
  SLOW_READER: gateway(52, 503, 'slow_reader', 'OM', {
    message: 'The client read its answer too slowly while the gateway was short of memory.',
    hint: 'For the log only: its connection was cut. `degrade.memory` says when.',
    retryAfterS: 2,
  }),
  ALL_ATTEMPTS_FAILED: upstream(60, 'all_attempts_failed', 'URX', {
    message: 'No replica answered the request.',
    hint: 'Attempts or the retry budget are used up.',
    retry: 'never',
  }),
  CONNECT_REFUSED: upstream(61, 'connect_refused', 'UF', {
    message: 'The replica refused the connection.',
    hint: 'Nothing was sent.',
  }),
  CONNECT_TIMEOUT: upstream(62, 'connect_timeout', 'UF', {
    message: 'The replica did not accept the connection in time.',
    hint: '`timeouts.connect` passed; nothing was sent.',
  }),
  DNS_FAILED: upstream(63, 'dns_failed', 'DF', {
    message: 'The name of the replica does not resolve.',
    hint: 'Nothing was sent.',
  }),
  TLS_FAILED: upstream(64, 'tls_failed', 'UF', {
    message: 'The TLS handshake with the replica failed.',
    hint: 'Certificate or protocol; nothing was sent.',
  }),
  RESET: upstream(65, 'connection_reset', 'UR', {
    message: 'The replica reset the connection.',
    hint: 'RST from the replica or the network between.',
  }),
  CLOSED_EARLY: upstream(66, 'connection_closed', 'UC', {
    message: 'The replica closed the connection before its answer.',
    hint: 'FIN before the response headers.',
  }),
  RESPONSE_FRAMING: upstream(67, 'response_framing', 'UPE', {
    message: 'The replica sent a malformed HTTP response.',
    hint: 'Headers, chunking or lengths contradict; the replica is suspect.',
  }),
  HEADERS_TIMEOUT: upstream(68, 'headers_timeout', 'UT', {
    message: 'The replica did not start to answer in time.',
    hint: '`timeouts.first_token` of a stream, else `timeouts.answer`, passed before the headers.',
  }),
  FIRST_TOKEN_TIMEOUT: upstream(69, 'first_token_timeout', 'UT', {
    message: 'The replica did not produce a first token in time.',
    hint: '`timeouts.first_token`, or `timeouts.answer`, passed after the response headers.',
  }),
  INTER_TOKEN_TIMEOUT: upstream(70, 'inter_token_timeout', 'SI', {
    message: 'The replica stopped producing tokens.',
    hint: '`timeouts.inter_token` passed between two tokens.',
  }),
  TRUNCATED_STREAM: upstream(71, 'truncated_stream', 'UC', {
    message: 'The stream of the replica ended before it was complete.',
    hint: 'No [DONE] and no finish_reason for every choice.',
  }),
  EVENT_TOO_LARGE: upstream(72, 'event_too_large', 'UPE', {
    message: 'The replica sent a stream event that is too large.',
    hint: 'One event is bounded; the stream cannot be followed past it.',
  }),
  ERROR_EVENT: upstream(73, 'replica_error_event', 'UPE', {
    message: 'The replica reported an error in its stream.',
    hint: 'An error event before the first token is a failed attempt.',
  }),
  ERROR_BODY: upstream(74, 'replica_error_body', 'UPE', {
    message: 'The replica reported an error with status 200.',
    hint: 'The body is an error object.',
  }),
  MALFORMED_EVENT: upstream(75, 'malformed_event', 'UPE', {
    message: 'The replica sent a stream event that is not JSON.',
    hint: 'The data of an event is neither a JSON object nor [DONE].',
  }),
  REPLICA_5XX: upstream(76, 'replica_error', 'UPE', {
    message: 'The replica failed.',
    hint: 'A 5xx status other than 503.',
  }),
  REPLICA_OVERLOADED: upstream(77, 'replica_overloaded', 'UO', {
    message: 'The replica is overloaded.',
    hint: 'Status 503; its retry-after is respected.',
    status: 503,
    type: 'overloaded',
    retryAfterS: 1,
  }),
  REPLICA_RATE_LIMITED: upstream(80, 'rate_limit_exceeded', 'UO', {
    message: 'The replica limits the rate of requests.',
    hint: 'Status 429; its retry-after is respected.',
    status: 429,
    type: 'requests',
    retryAfterS: 1,
  }),
  REPLICA_UNAUTHORIZED: upstream(78, 'replica_unauthorized', 'UPE', {
    message: 'The replica refused the credentials of the gateway.',
    hint: 'Status 401: the replica is misconfigured (`api_key`).',
  }),
  REPLICA_FORBIDDEN: upstream(87, 'replica_unauthorized', 'UPE', {
    message: 'The replica refused the request of the gateway.',
    hint: 'Status 403: the replica is misconfigured (`api_key`), or does not allow this request.',
  }),
  CLIENT_KEY_REFUSED: upstream(81, 'invalid_api_key', 'UAEX', {
    message: 'The replica refused the API key of the request.',
    hint: 'Status 401 or 403 to the key of the client. A replica that wants a key of the gateway is misconfigured (`api_key`).',
    status: 401,
    type: 'invalid_request_error',
  }),
  BATCH_REFUSED: upstream(82, 'batch_refused', 'UPE', {
    message: 'The replica refused a batch, and no replica was left to ask alone.',
    hint: 'A 4xx status, or too large an answer, to several requests in one call.',
  }),
  BATCH_ANSWER: upstream(83, 'batch_answer', 'UPE', {
    message: 'The replica answered a batch wrongly, and no replica was left to ask alone.',
    hint: 'Not one choice for each prompt: the replica cannot take batches.',
  }),
  BATCH_FAILED: upstream(84, 'batch_failed', 'UPE', {
    message: 'The replica failed a batch, and no replica was left to ask alone.',
    hint: 'It answered 5xx, broke off or was too late with several requests in one call.',
  }),
  CONTINUATION_REFUSED: upstream(85, 'continuation_refused', 'UC', {
    message: 'The stream broke, and no other replica would continue it.',
    hint: 'The replica that was asked refused the request or answered with no stream.',
    retry: 'never',
  }),
  RESPONSE_TOO_LARGE: upstream(79, 'response_too_large', 'UPE', {
    message: 'The answer of the replica is too large.',
    hint: 'Answers that are not streams are bounded.',
    retry: 'never',
  }),
  NOT_A_STREAM: upstream(86, 'not_a_stream', 'UPE', {
    message: 'The replica answered with something other than a stream.',
    hint: 'Its client had been sent keep-alive comments, and with them the head of a stream.',
    retry: 'never',
  }),
  STREAM_OPTIONS_REFUSED: upstream(89, 'stream_options_refused', 'UPE', {
    message: 'The replica does not know `stream_options`: its streams do not tell their usage.',
    hint: 'For logs only: it was asked without, and is asked so for ten minutes. `stream_usage: off` of the model says so for good.',
  }),
  CONTINUOUS_USAGE_REFUSED: upstream(91, 'continuous_usage_refused', 'UPE', {
    message:
      'The replica refuses `continuous_usage_stats` in `stream_options`: its streams are asked for their usage at the end alone.',
    hint: 'For logs only: it is asked so for ten minutes. `stream_usage: end` of the model says so for good.',
  }),
  DEADLINE: gateway(90, 504, 'deadline_exceeded', 'DT', {
    message: 'The request took too long.',
    hint: '`timeouts.total` or `x-sluice-deadline-ms` passed.',
    type: 'timeout',
  }),
  ...tenantRows,
  ...requestRows,
  CLIENT_STALLED: client(98, 499, 'client_stalled', 'SI', {
    message: 'The client took nothing of its answer for too long.',
    hint: 'For logs and metrics only: its connection was cut.',
  }),
  CLIENT_GONE: client(99, 499, 'client_gone', 'DC', {
    message: 'The client closed the connection.',
    hint: 'For logs and metrics only: nobody is left to be answered.',
  }),
} as const satisfies Record<string, Entry>;

/** Numbers that belong to no entry and that no new one may take. */
export const reservedNumbers: readonly number[] = [20, 21, 30, 47, 48];

export type ErrorName = keyof typeof rows;

const names = Object.keys(rows) as ErrorName[];

/** Every entry under its name. */
export const errors: { readonly [K in ErrorName]: ErrorEntry } = Object.freeze(
  Object.fromEntries(names.map((name) => [name, Object.freeze({ name, ...rows[name] })])),
) as { readonly [K in ErrorName]: ErrorEntry };

/** Every entry, in the order of the numbers. */
export const errorList: readonly ErrorEntry[] = names
  .map((name) => errors[name])
  .sort((a, b) => a.number - b.number);

const byNumber: (ErrorEntry | undefined)[] = Array.from({ length: 128 });
for (const item of errorList) byNumber[item.number] = item;

/** The entry of a number another thread sent; a number nobody knows is our own defect: INTERNAL. */
export function errorOf(number: number): ErrorEntry {
  return byNumber[number] ?? errors.INTERNAL;
}
