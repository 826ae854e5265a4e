/** Rows of the catalogue (catalogue.ts): what a request may ask for. Pure data. */
import { client, type Entry, gateway } from './entry.ts';

export const requestRows = {
  CONTEXT_LENGTH: client(110, 400, 'context_length_exceeded', 'DPE', {
    message: 'The prompt and the tokens asked for are more than the context of the model holds.',
    hint: '`max_context` of the model, of the tenant, or of the model for it.',
    param: 'messages',
  }),
  PARAM_TOO_LARGE: client(111, 400, 'integer_above_max_value', 'DPE', {
    message: 'A number of the request is above its maximum.',
    hint: '`requests.max_n`, `max_tokens_cap` or `max_logprobs`; `max_n` of the tenant, or of the model for it.',
  }),
  PARAM_TOO_LONG: client(112, 400, 'array_above_max_length', 'DPE', {
    message: 'A list of the request is too long.',
    hint: '`requests.max_stop` or `max_prompts`; `max_n` of the tenant, or of the model for it.',
  }),
  PARAM_NOT_ALLOWED: client(113, 400, 'unsupported_parameter', 'DPE', {
    message: 'The request has a parameter that clients may not use.',
    hint: '`requests.allow` lists those they may.',
  }),
  UNKNOWN_PARAM: client(114, 400, 'unknown_parameter', 'DPE', {
    message: 'A parameter has the name of another one in capitals.',
    hint: 'Some engines read `Model` as `model`: names are taken as they are written, in small letters.',
  }),
  RESPONSE_NOT_FOUND: client(126, 404, 'response_not_found', 'NR', {
    message: 'The response is not known.',
    hint: 'The message says why: which replica keeps it is remembered by the gateway that made it, as long as it runs.',
  }),
  RESPONSE_UNAVAILABLE: gateway(127, 503, 'response_unavailable', 'UH', {
    message: 'The replica that keeps the response cannot be asked now.',
    hint: 'It is unhealthy or left out for what it did. No other replica has what it keeps.',
    retryAfterS: 1,
  }),
} as const satisfies Record<string, Entry>;
