/** Errors of keys, limits, budgets and names: what a tenant may ask for. Pure data; see catalogue.ts. */
import { client, type Entry, gateway, upstream } from './entry.ts';

export const tenantRows = {
  KEY_REQUIRED: client(100, 401, 'invalid_api_key', 'UAEX', {
    message:
      'No API key was given. Send one in the header Authorization, as a Bearer token, or x-api-key.',
    hint: 'The route asks for a key: `auth.keys`.',
  }),
  KEY_UNKNOWN: client(101, 401, 'invalid_api_key', 'UAEX', {
    message: 'The API key is not known.',
    hint: 'No tenant of the config has a key with its SHA-256.',
  }),
  KEY_DISABLED: client(102, 401, 'invalid_api_key', 'UAEX', {
    message: 'The API key is disabled.',
    hint: '`disabled` of the key in the config, or the admin listener.',
  }),
  KEY_EXPIRED: client(103, 401, 'invalid_api_key', 'UAEX', {
    message: 'The API key has expired.',
    hint: '`expires` of the key in the config.',
  }),
  MODEL_NOT_ALLOWED: client(104, 403, 'model_not_allowed', 'UAEX', {
    message: 'The API key may not use this model.',
    hint: '`models` of its tenant, or of the key itself.',
    type: 'permission_error',
    param: 'model',
  }),
  REQUEST_LIMIT: gateway(105, 429, 'rate_limit_exceeded', 'RL', {
    message: 'The tenant has used up its requests per minute.',
    hint: '`limits.requests_per_minute` of the tenant, or of the model for it.',
    type: 'requests',
    retryAfterS: 1,
  }),
  TOKEN_LIMIT: gateway(106, 429, 'rate_limit_exceeded', 'RL', {
    message: 'The tenant has used up its tokens per minute.',
    hint: '`limits.input_tokens_per_minute` or `output_tokens_per_minute`; `max_tokens` is set aside until the answer is over.',
    type: 'tokens',
    retryAfterS: 1,
  }),
  CONCURRENCY_LIMIT: gateway(107, 429, 'rate_limit_exceeded', 'RL', {
    message: 'The tenant has as many requests at one time as it may have.',
    hint: '`limits.concurrency` of the tenant, or of the model for it.',
    type: 'requests',
    retryAfterS: 1,
  }),
  LIMITS_UNKNOWN: gateway(125, 503, 'limits_unavailable', 'RL', {
    message: 'The limits or the budget of the tenant cannot be looked up now.',
    hint: '`limits.redis` does not answer, and the tenant has `failure_mode: closed`.',
    retryAfterS: 1,
  }),
  REPLICA_LIMIT: gateway(123, 429, 'rate_limit_exceeded', 'RL', {
    message: 'The rate limits of the replicas are used up.',
    hint: '`limits` of the replicas of the model, which the gateway keeps for them.',
    type: 'requests',
    retryAfterS: 1,
  }),
  CONTEXT_OVERFLOW: client(122, 400, 'context_length_exceeded', 'UR', {
    message: 'The prompt is longer than the context of the model.',
    hint: 'No model of `context_window_fallbacks` could take it either.',
    param: 'messages',
  }),
  REPLY_REFUSED: upstream(124, 'reply_refused', 'UR', {
    message: 'The model refused to answer.',
    hint: 'Its reply was discarded by `cascade.on_reply`, and no larger model was left.',
  }),
  REPLY_UNSURE: upstream(88, 'reply_low_confidence', 'UR', {
    message: 'The model is not sure of its answer.',
    hint: 'Its reply was discarded by `cascade.on_reply`, and no larger model was left.',
  }),
  BUDGET_SPENT: gateway(116, 429, 'insufficient_quota', 'RL', {
    message: 'The tenant has spent its budget.',
    hint: '`budget` of the tenant; `GET /admin/tenants` says what is spent. `retry-after` is the end of its day or month.',
    type: 'insufficient_quota',
    retryAfterS: 1,
  }),
} as const satisfies Record<string, Entry>;
