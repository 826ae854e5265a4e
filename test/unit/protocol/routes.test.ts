/** The route table: exact matches, 404 against 405, and paths that try to be something else. */
import { expect, test } from 'vitest';
import {
  isAnthropicTarget,
  matchRoute,
  type RouteMatch,
  routeOf,
  routes,
} from '../../../src/protocol/routes.ts';

function match(method: string, target: string): RouteMatch {
  const result: RouteMatch = { route: undefined, allow: 'stale', parameter: 'stale' };
  matchRoute(method, target, result);
  return result;
}

test.each([
  ['/v1/chat/completions', 'json', 'openai-chat', true],
  ['/v1/completions', 'json', 'openai-completions', true],
  ['/v1/embeddings', 'json', 'whole', false],
  ['/v1/responses', 'json', 'responses', true],
  ['/v1/messages', 'json', 'anthropic', true],
  ['/v1/messages/count_tokens', 'json', 'whole', false],
  ['/v1/rerank', 'json', 'whole', false],
  ['/rerank', 'json', 'whole', false],
  ['/v1/score', 'json', 'whole', false],
  ['/v1/classify', 'json', 'whole', false],
  ['/tokenize', 'json', 'whole', false],
  ['/detokenize', 'json', 'whole', false],
  ['/v1/tokenize', 'json', 'whole', false],
  ['/v1/detokenize', 'json', 'whole', false],
  ['/v1/audio/transcriptions', 'multipart', 'whole', true],
  ['/v1/audio/translations', 'multipart', 'whole', false],
  ['/v1/audio/speech', 'json', 'whole', false],
  ['/v1/images/generations', 'json', 'whole', false],
  ['/v1/images/edits', 'multipart', 'whole', false],
  ['/v1/images/variations', 'multipart', 'whole', false],
])('POST %s', (path, model, shape, streams) => {
  const { route } = match('POST', `${path}?api-version=1&x=/../y`);
  const isRead = !/token/.test(path);
  expect(route).toMatchObject({ path, model, shape, streams, isRead, action: 'proxy' });
  expect(match('GET', path)).toEqual({ route: undefined, allow: 'POST', parameter: '' });
  expect(match('POST', `${path}/`).allow).toBe('');
});

test.each([
  ['GET', '/v1/models', 'models'],
  ['GET', '/healthz', 'health'],
  ['GET', '/livez', 'health'],
  ['GET', '/health', 'health'],
  ['GET', '/readyz', 'ready'],
  ['HEAD', '/', 'root'],
  ['HEAD', '/healthz', 'health'],
])('%s %s is answered by the gateway', (method, path, action) => {
  expect(match(method, path).route).toMatchObject({ action, model: 'none', streams: false });
});

test('405 names every method of the path', () => {
  expect(match('PUT', '/v1/responses/resp_1')).toMatchObject({ allow: 'GET, DELETE' });
  expect(match('POST', '/v1/responses/resp_1')).toMatchObject({ allow: 'GET, DELETE' });
  expect(match('GET', '/v1/responses/resp_1/cancel')).toMatchObject({ allow: 'POST' });
  expect(match('DELETE', '/v1/responses/resp_1/input_items')).toMatchObject({ allow: 'GET' });
  expect(match('POST', '/healthz')).toMatchObject({ allow: 'GET, HEAD' });
  expect(match('post', '/v1/completions')).toMatchObject({ route: undefined, allow: 'POST' });
});

test('dynamic segments are captured', () => {
  const response = match('DELETE', '/v1/responses/resp_a-1.b~2?x');
  expect([response.route?.path, response.parameter]).toEqual(['/v1/responses/', 'resp_a-1.b~2']);
  const cancel = match('POST', '/v1/responses/cancel/cancel?x=/input_items');
  expect([cancel.route?.id, cancel.parameter]).toEqual([23, 'cancel']);
  const items = match('GET', '/v1/responses/r/input_items?limit=2');
  expect([items.route?.id, items.parameter]).toEqual([24, 'r']);
  const model = match('GET', '/v1/models/meta-llama/Llama-3:8b@v1');
  expect([model.route?.action, model.parameter]).toEqual(['model', 'meta-llama/Llama-3:8b@v1']);
});

test.each([
  ['meta-llama%2FLlama-3-8b', 'meta-llama/Llama-3-8b'],
  ['a%2fb%3Ac%40d', 'a/b:c@d'],
  ['%61%25%2B%23%3F', 'a%+#?'],
  ["a!*'()b", "a!*'()b"],
  [`${'%61'.repeat(256)}`, 'a'.repeat(256)],
])('the name of a model may be encoded: %s', (encoded, name) => {
  expect(match('GET', `/v1/models/${encoded}?x=1`)).toMatchObject({ parameter: name });
});

test.each([
  '/v1/models/',
  '/v1/models/../chat',
  '/v1/models/a/..',
  '/v1/models/./a',
  '/v1/models//a',
  '/v1/models/a//b',
  '/v1/models/a%2f',
  '/v1/models/%2fa',
  '/v1/models/a%2f..%2fb',
  '/v1/models/a%2f%2Fb',
  '/v1/models/%2e%2e',
  '/v1/models/%',
  '/v1/models/a%2',
  '/v1/models/a%zz',
  '/v1/models/a%ff',
  '/v1/models/a%20b',
  '/v1/models/a%00',
  '/v1/models/a%0d%0ab',
  '/v1/models/%C3%A9',
  `/v1/models/${'%61'.repeat(257)}`,
  '/v1/responses/a%62',
  '/v1/responses/a%2fb',
  '/v1/models/a b',
  '/v1/models/a\\b',
  '/v1/models/a\n',
  `/v1/models/${'a'.repeat(257)}`,
  '/v1/responses/',
  '/v1/responses/a/b',
  '/v1/responses/..',
  '/v1/responses/a/b/cancel',
  '/v1/responses//cancel',
  '/v1/responses/a/cancel/',
  '/v1/responses/%61/cancel',
  '//v1/chat/completions',
  '/v1//chat/completions',
  '/v1/./chat/completions',
  '/v1/x/../chat/completions',
  '/v1/chat%2fcompletions',
  '/v1/chat/%63ompletions',
  '/V1/chat/completions',
  '/v1/chat/completions;x',
  '/v1/chat/completions#x',
  'v1/chat/completions',
  'http://host/v1/chat/completions',
  '*',
  '',
  '?',
  '/__proto__',
  '/constructor',
  '/v1/realtime',
  '/admin/slots',
])('no route, and no method that would help: %s', (target) => {
  for (const method of ['GET', 'POST', 'DELETE']) {
    expect(match(method, target)).toMatchObject({ route: undefined, allow: '' });
  }
});

test('what lies under /v1/messages is asked by clients of Anthropic', () => {
  const inside = ['/v1/messages', '/v1/messages?a', '/v1/messages/count_tokens', '/v1/messages/x'];
  const outside = ['/v1/messagesx', '/v1/chat/completions', '/x/v1/messages', '/v1/message', ''];
  expect(inside.filter(isAnthropicTarget)).toEqual(inside);
  expect(outside.filter(isAnthropicTarget)).toEqual([]);
});

test('ids are unique, small, and lead back to their route', () => {
  expect(new Set(routes.map((route) => route.id)).size).toBe(routes.length);
  for (const route of routes) {
    expect(route.id).toBeGreaterThan(0);
    expect(route.id).toBeLessThan(64);
    expect(routeOf(route.id)).toBe(route);
  }
  expect(() => routeOf(63)).toThrow('route id');
});
