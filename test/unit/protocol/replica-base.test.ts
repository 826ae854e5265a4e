import { expect, test } from 'vitest';
import { ReplicaPaths, replicaBase, urlAt } from '../../../src/protocol/replica-base.ts';
import { routes } from '../../../src/protocol/routes.ts';

/** Where the documents of each provider have the base, a chat and what is outside the API. */
test.each([
  ['http://h:8000', 'http://h:8000/v1/chat/completions', 'http://h:8000/tokenize'],
  [
    'https://api.groq.com/openai/v1',
    'https://api.groq.com/openai/v1/chat/completions',
    'https://api.groq.com/openai/tokenize',
  ],
  [
    'https://openrouter.ai/api/v1',
    'https://openrouter.ai/api/v1/chat/completions',
    'https://openrouter.ai/api/tokenize',
  ],
  [
    'https://generativelanguage.googleapis.com/v1beta/openai',
    'https://generativelanguage.googleapis.com/v1beta/openai/chat/completions',
    'https://generativelanguage.googleapis.com/v1beta/openai/tokenize',
  ],
  [
    'https://open.bigmodel.cn/api/paas/v4',
    'https://open.bigmodel.cn/api/paas/v4/chat/completions',
    'https://open.bigmodel.cn/api/paas/tokenize',
  ],
  ['http://h:1/v2', 'http://h:1/v2/chat/completions', 'http://h:1/tokenize'],
  ['http://h:1/vllm', 'http://h:1/vllm/chat/completions', 'http://h:1/vllm/tokenize'],
])('a replica at %s', (url, chat, tokenize) => {
  expect(urlAt(url, '/v1/chat/completions')).toBe(chat);
  expect(urlAt(url, '/tokenize')).toBe(tokenize);
  expect(urlAt(url, '/v1/models?x=/v1/')).toBe(chat.replace('/chat/completions', '/models?x=/v1/'));
});

test('without a path every route is asked for as it came', () => {
  const paths = new ReplicaPaths('http://h:1');
  for (const route of routes) expect(paths.ofRoute(route)).toBe(route.path);
});

test('the path of a route is made once', () => {
  const paths = new ReplicaPaths('https://h/openai/v1');
  for (const route of routes) {
    const at = `/openai${route.path}`;
    expect(paths.ofRoute(route)).toBe(at);
    expect(paths.of(route.path)).toBe(at);
  }
  expect(paths.of('/v1/responses/r?a=1')).toBe('/openai/v1/responses/r?a=1');
  expect(paths.of('/v1x')).toBe('/openai/v1x');
  expect(replicaBase('https://h/openai/v1').origin).toBe('https://h');
});
