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

function errorBody(status: number, message: string, path: string, code: string | null): unknown {
  if (path.startsWith('/v1/messages')) {
    const type = TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
    return { type: 'error', error: { type, message } };
  }
  const type = status < 500 ? 'invalid_request_error' : 'server_error';
  return { error: { message, type, param: null, code } };
}
