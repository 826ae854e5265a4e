/** The completion observer: tokens, ends, errors and usage of each protocol, from the bytes. */
import { beforeEach, describe, expect, test } from 'vitest';
import { CompletionObserver, Observed } from '../../../src/protocol/completion-observer.ts';
import type { AnswerShape } from '../../../src/protocol/routes.ts';
import { SseScanner } from '../../../src/protocol/sse-scanner.ts';

const observer = new CompletionObserver();
beforeEach(() => observer.reset('openai-chat', 1));

function feed(payload: unknown): number {
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
  const bytes = Buffer.from(`xx${text}}}`);
  return observer.onPayload(bytes, 2, bytes.length - 2);
}

const chunk = (delta: object, extra: object = {}): object => ({
  id: 'chatcmpl-1',
  object: 'chat.completion.chunk',
  created: 1,
  model: 'm',
  choices: [{ index: 0, delta, finish_reason: null, ...extra }],
});

describe('the first token', () => {
  test.each([
    ['a role alone', { role: 'assistant' }, false],
    ['a role and empty content', { role: 'assistant', content: '' }, false],
    ['null content', { content: null, tool_calls: [], audio: {} }, false],
    ['an empty delta', {}, false],
    ['content', { content: 'a' }, true],
    ['a space', { content: ' ' }, true],
    ['role and content at once', { role: 'assistant', content: 'a' }, true],
    ['reasoning_content', { reasoning_content: 'hm' }, true],
    ['reasoning', { reasoning: 'hm', content: null }, true],
    ['refusal', { refusal: 'no' }, true],
    ['a tool call', { tool_calls: [{ index: 0, function: { name: 'f' } }] }, true],
    ['a function call', { function_call: { name: 'f' } }, true],
  ])('%s', (_name, delta, expected) => {
    const flags = feed(chunk(delta));
    expect((flags & Observed.token) !== 0).toBe(expected);
    expect(observer.sawToken).toBe(expected);
    expect(observer.id).toBe('chatcmpl-1');
  });

  test('text of a completion', () => {
    observer.reset('openai-completions', 1);
    expect(feed({ choices: [{ index: 0, text: '', finish_reason: null }] })).toBe(0);
    expect(feed({ choices: [{ index: 0, text: 'a', finish_reason: null }] })).toBe(Observed.token);
  });
});

describe('completeness', () => {
  test('[DONE] completes, with or without spaces behind it', () => {
    expect(feed('[DONE]')).toBe(Observed.done);
    expect(observer.complete).toBe(true);
    observer.reset('openai-chat', 4);
    expect(feed('[DONE]  ')).toBe(Observed.done);
    expect(observer.complete).toBe(true);
  });

  test('a finish reason for every choice completes, one missing does not', () => {
    observer.reset('openai-chat', 3);
    for (const index of [2, 0, 2]) {
      const flags = feed({ choices: [{ index, delta: {}, finish_reason: 'stop' }] });
      expect(flags).toBe(Observed.finish);
      expect(observer.complete).toBe(false);
    }
    feed({ choices: [{ finish_reason: 'length', index: 1, delta: {} }] });
    expect(observer.complete).toBe(true);
  });

  test('text that looks like an end is no end', () => {
    feed(chunk({ content: 'a' }, { finish_reason: '' }));
    feed(chunk({ content: '"finish_reason":"stop"} data: [DONE]', finish_reason: 'stop' }));
    feed(chunk({ content: { finish_reason: 'stop' } }));
    feed({ metadata: { choices: [{ finish_reason: 'stop' }] }, choices: [] });
    expect(observer.complete).toBe(false);
  });

  test('indexes out of range cannot grow the record', () => {
    for (const index of [1, 127, 1e9, 2 ** 53, 1e308]) {
      feed({ choices: [{ index, delta: {}, finish_reason: 'stop' }] });
      expect(observer.complete, `index ${index}`).toBe(false);
    }
  });

  test.each([-1, 0.5, 'x', null])('an index that is none is the place in the list: %s', (index) => {
    observer.reset('openai-chat', 2);
    feed({ choices: [0, 1].map(() => ({ index, delta: {}, finish_reason: 'stop' })) });
    expect(observer.complete).toBe(true);
  });

  test.each([129, 1000, 16_384])('of %i choices each one must finish', (choices) => {
    observer.reset('openai-completions', choices);
    const finish = (index: number): void => {
      feed({ choices: [{ index, text: '', finish_reason: 'stop' }] });
    };
    for (let index = choices - 1; index > 0; index--) finish(index);
    for (const index of [choices - 1, 128, choices, 2 * choices]) finish(index);
    expect(observer.complete).toBe(false);
    finish(0);
    expect(observer.complete).toBe(true);
  });

  test('of more choices than can be followed only [DONE] tells that they are complete', () => {
    observer.reset('openai-completions', 20_000);
    for (let index = 0; index < 20_000; index++) {
      feed({ choices: [{ index, text: '', finish_reason: 'stop' }] });
    }
    expect(observer.complete).toBe(false);
    feed('[DONE]');
    expect(observer.complete).toBe(true);
  });

  test('a reset forgets everything', () => {
    feed(chunk({ content: 'a' }, { finish_reason: 'stop' }));
    feed('garbage');
    observer.reset('openai-chat', 1);
    expect(observer).toMatchObject({ complete: false, id: '', malformed: 0, sawToken: false });
    feed(chunk({}, { index: 0, finish_reason: 'stop' }));
    observer.reset('openai-chat', 1);
    expect(observer.complete).toBe(false);
  });
});

describe('errors', () => {
  test.each([
    ['OpenAI', { error: { message: 'x', code: 500 } }],
    ['a string', { error: 'out of memory' }],
    ['vLLM, object first', { object: 'error', message: 'x', type: 'y', code: 400 }],
    ['Anthropic', { type: 'error', error: { type: 'overloaded_error', message: 'x' } }],
  ])('%s', (_name, payload) => {
    expect(feed(payload) & Observed.error).toBe(Observed.error);
    expect(observer.sawError).toBe(true);
    observer.reset('openai-chat', 1);
    const body = Buffer.from(JSON.stringify(payload));
    expect(observer.onBody(body, 0, body.length) & Observed.error).toBe(Observed.error);
  });

  test('a null error and error words inside the answer are no errors', () => {
    expect(feed({ error: null, ...chunk({ content: '{"error":{}}' }) })).toBe(Observed.token);
    expect(observer.sawError).toBe(false);
  });

  test('an error event is an error whatever its data', () => {
    const flags: number[] = [];
    const scanner = new SseScanner((event) => flags.push(observer.onEvent(event)));
    scanner.push(Buffer.from('event: error\ndata: oops\n\n: ping\n\nevent: ping\n\n'));
    expect(flags).toEqual([Observed.error | Observed.malformed, 0, 0]);
    expect(observer.sawError).toBe(true);
  });

  test('an error at the head of a body is found though the rest is missing', () => {
    const head = Buffer.from('{"error":{"message":"x"},"details":[1,2');
    const flags = observer.onBody(head, 0, head.length);
    expect(flags).toBe(Observed.error | Observed.malformed);
  });

  test.each([
    '',
    ' ',
    'null',
    '"x"',
    '[1]',
    '{',
    '{"a":1',
    '{"a":1}x',
    '{"a" 1}',
    '[DONE',
    '[done]',
  ])('malformed: %j', (payload) => {
    expect(feed(payload)).toBe(Observed.malformed);
    expect(observer.malformed).toBe(1);
    expect(observer.complete).toBe(false);
  });

  test('facts of an event that turns out to be garbage do not count', () => {
    expect(feed('{"choices":[{"index":0,"delta":{"content":"a"}}')).toBe(Observed.malformed);
    expect(observer.sawToken).toBe(false);
    feed('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]');
    expect(observer.complete).toBe(false);
  });
});

describe('usage', () => {
  test('OpenAI, alone in its event', () => {
    const usage = {
      prompt_tokens: 11,
      completion_tokens: 22,
      total_tokens: 33,
      prompt_tokens_details: { cached_tokens: 8 },
    };
    expect(feed({ choices: [], usage })).toBe(Observed.usage | Observed.usageOnly);
    expect(observer.usage).toEqual({ prompt: 11, completion: 22, cached: 8 });
  });

  test('a total alone is of the prompt', () => {
    feed({ results: [], usage: { total_tokens: 33 } });
    expect(observer.usage).toEqual({ prompt: 33, completion: -1, cached: -1 });
    feed({ usage: { prompt_tokens: 5, total_tokens: 33 } });
    expect(observer.usage.prompt).toBe(5);
    observer.reset('whole', 1);
    feed({ usage: { completion_tokens: 5, total_tokens: 33 } });
    expect(observer.usage).toEqual({ prompt: -1, completion: 5, cached: -1 });
  });

  test('null usage and null details say nothing', () => {
    expect(feed({ ...chunk({ content: 'a' }), usage: null })).toBe(Observed.token);
    feed({ choices: [], usage: { prompt_tokens: 5, prompt_tokens_details: null } });
    expect(observer.usage).toEqual({ prompt: 5, completion: -1, cached: -1 });
  });

  test('numbers that are no counts change nothing', () => {
    feed({ choices: [], usage: { prompt_tokens: -1, completion_tokens: 1.5 } });
    feed('{"usage":{"prompt_tokens":1e400,"completion_tokens":"7","total_tokens":[]}}');
    expect(observer.usage).toEqual({ prompt: -1, completion: -1, cached: -1 });
  });
});

function run(shape: AnswerShape, events: object[]): number[] {
  observer.reset(shape, 1);
  return events.map(feed);
}

test('an Anthropic stream', () => {
  const { token, done, finish, usage } = Observed;
  const cache = { cache_read_input_tokens: 4, cache_creation_input_tokens: 2 };
  const usageStart = { input_tokens: 9, ...cache, output_tokens: 1 };
  const flags = run('anthropic', [
    { type: 'message_start', message: { id: 'msg_1', role: 'assistant', usage: usageStart } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'ping' },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hi' } },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 12 } },
    { type: 'message_stop' },
  ]);
  expect(flags).toEqual([usage, 0, 0, token, 0, finish | usage, done]);
  expect(observer).toMatchObject({ id: 'msg_1', complete: true });
  // What the cache gave or got is counted beside the rest of the prompt there.
  expect(observer.usage).toEqual({ prompt: 15, completion: 12, cached: 4 });
});

test('a Responses stream', () => {
  const { token, done, error, usage } = Observed;
  const total = { input_tokens: 3, output_tokens: 4, input_tokens_details: { cached_tokens: 2 } };
  const flags = run('responses', [
    { type: 'response.created', response: { id: 'resp_1', status: 'in_progress', error: null } },
    { type: 'response.output_text.delta', delta: 'Hi' },
    { type: 'response.completed', response: { id: 'resp_1', error: null, usage: total } },
  ]);
  expect(flags).toEqual([0, token, done | usage]);
  expect(observer).toMatchObject({ id: 'resp_1', complete: true, sawError: false });
  expect(observer.usage).toEqual({ prompt: 3, completion: 4, cached: 2 });
  expect(run('responses', [{ type: 'response.failed', response: {} }])).toEqual([done | error]);
  expect(run('responses', [{ type: 'response.incomplete', response: {} }])).toEqual([done]);
});

test('a response that failed over its prompt is an answer, one that failed at its replica is none', () => {
  const { done, error, finish } = Observed;
  const failed = (code: string) => ({
    id: 'resp_1',
    status: 'failed',
    error: { message: 'no', code },
  });
  for (const [code, isError] of [
    ['invalid_prompt', false],
    ['image_content_policy_violation', false],
    ['server_error', true],
    ['rate_limit_exceeded', true],
  ] as const) {
    const expected = isError ? done | error : done;
    expect(run('responses', [{ type: 'response.failed', response: failed(code) }])).toEqual([
      expected,
    ]);
    expect(observer.sawError, code).toBe(isError);
    // Its members may come in any order.
    for (const entries of [Object.entries(failed(code)), Object.entries(failed(code)).reverse()]) {
      observer.reset('responses', 1);
      const body = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
      expect(observer.onBody(body, 0, body.length) & ~finish, code).toBe(expected);
    }
  }
  // An error that is no state of a response stays one.
  observer.reset('responses', 1);
  const body = Buffer.from('{"error":{"code":"invalid_prompt"}}');
  expect(observer.onBody(body, 0, body.length)).toBe(error);
});

test('a whole chat answer yields id, finish reasons, usage and no error', () => {
  observer.reset('openai-chat', 2);
  const body = Buffer.from(
    JSON.stringify({
      id: 'c-9',
      choices: [
        { index: 0, message: { role: 'assistant', content: 'a' }, finish_reason: 'stop' },
        { index: 1, message: { role: 'assistant', content: 'b' }, finish_reason: 'length' },
      ],
      usage: { prompt_tokens: 1, completion_tokens: 2 },
    }),
  );
  const flags = observer.onBody(body, 0, body.length);
  expect(flags).toBe(Observed.token | Observed.finish | Observed.usage);
  expect(observer).toMatchObject({ id: 'c-9', complete: true, sawError: false });
});
