import { expect, test } from 'vitest';
import {
  createRequestTemplate,
  type RequestBody,
  type RequestShape,
} from '../../../src/load/request-template.ts';

const shape: RequestShape = {
  endpoint: '/v1/chat/completions',
  model: 'm',
  stream: false,
  inputTokens: 0,
  promptBytes: 0,
  outputTokens: 16,
  ignoreEos: false,
  seed: 1,
};

/** Reads the bytes a connection would write, as a server would. */
function received(body: RequestBody): { head: string; body: Record<string, unknown> } {
  const wire = `${body.beforeId}id-1${body.afterId}${body.large ?? ''}`;
  const [head, payload] = wire.split('\r\n\r\n') as [string, string];
  const length = /content-length: (\d+)/.exec(head)?.[1];
  expect(Number(length)).toBe(Buffer.byteLength(payload));
  expect(head.endsWith('x-request-id: id-1')).toBe(true);
  return { head, body: JSON.parse(payload) };
}

test('without lengths the body is the classic one', () => {
  const template = createRequestTemplate(shape, 'host:1', { authorization: 'Bearer k' });
  expect(template.bodies).toHaveLength(1);
  const { head, body } = received(template.bodies[0]!);
  expect(head).toContain('POST /v1/chat/completions HTTP/1.1\r\nhost: host:1');
  expect(head).toContain('authorization: Bearer k');
  expect(body).toEqual({
    model: 'm',
    messages: [{ role: 'user', content: 'hello' }],
    max_tokens: 16,
  });
});

test('a large prompt has exactly its bytes, is apart from the head and differs between bodies', () => {
  const { bodies } = createRequestTemplate({ ...shape, promptBytes: 220_000 }, 'h');
  const prompts = bodies.map((body) => {
    expect(body.large).toBeDefined();
    const messages = received(body).body.messages as { content: string }[];
    return messages[0]!.content;
  });
  expect(prompts.map((prompt) => prompt.length)).toEqual(prompts.map(() => 220_000));
  expect(new Set(prompts).size).toBe(bodies.length);
});

test('the same seed gives the same bodies', () => {
  const sized = { ...shape, inputTokens: 50 };
  expect(createRequestTemplate(sized, 'h')).toEqual(createRequestTemplate(sized, 'h'));
  expect(createRequestTemplate({ ...sized, seed: 2 }, 'h')).not.toEqual(
    createRequestTemplate(sized, 'h'),
  );
});

test.each([
  ['/v1/completions', { model: 'm', prompt: 'hello', max_tokens: 16 }],
  ['/v1/embeddings', { model: 'm', input: 'hello' }],
  ['/v1/responses', { model: 'm', input: 'hello', max_output_tokens: 16 }],
  ['/v1/messages', { model: 'm', messages: [{ role: 'user', content: 'hello' }], max_tokens: 16 }],
])('the prompt goes where %s wants it', (endpoint, expected) => {
  const { bodies } = createRequestTemplate({ ...shape, endpoint }, 'h');
  expect(received(bodies[0]!).body).toEqual(expected);
});

test('a stream asks for usage, and ignore_eos is passed on', () => {
  const { bodies } = createRequestTemplate({ ...shape, stream: true, ignoreEos: true }, 'h');
  expect(received(bodies[0]!).body).toMatchObject({
    stream: true,
    stream_options: { include_usage: true },
    ignore_eos: true,
  });
});
