/** Error answers in the shape of the API that was asked. Pure. */
import { type Answer, jsonAnswer } from './answer.ts';

const TYPES: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  429: 'rate_limit_error',
  529: 'overloaded_error',
};

/** An error; `code` only where OpenAI has one. The Messages API has its own shape. */
export function errorAnswer(
  status: number,
  message: string,
  path: string,
  code: string | null = null,
  headers = '',
): Answer {
  return jsonAnswer(status, errorBody(status, message, path, code), headers);
}

/** What engines say to a prompt that is longer than their context: status, code, message. */
export const TOO_LONG: Readonly<Record<string, readonly [number, string | null, string]>> = {
  openai: [400, 'context_length_exceeded', 'Your messages resulted in 9000 tokens.'],
  vllm: [
    ...([400, null] as const),
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
  ],
  sglang: [
    ...([400, null] as const),
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
  ],
  llama: [
    ...([400, null] as const),
    'the request exceeds the available context size, try increasing it',
  ],
  tgi: [
    ...([422, null] as const),
    'Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.',
  ],
};

function errorBody(status: number, message: string, path: string, code: string | null): unknown {
  if (path.startsWith('/v1/messages')) {
    const type = TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
    return { type: 'error', error: { type, message } };
  }
  const type = status < 500 ? 'invalid_request_error' : 'server_error';
  return { error: { message, type, param: null, code } };
}
