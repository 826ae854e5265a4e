/** Streams whose token ids are kept: what their clients see, and when they may not be continued. */
import { describe, expect, test } from 'vitest';
import { failures } from '../../../src/forwarder/failure.ts';
import { completionPath } from '../../../src/protocol/continued-body.ts';
import { eventBytesMaxDefault } from '../../../src/protocol/sse-scanner.ts';
import { done, event, request, StreamClient, usageOf } from '../../support/stream-client.ts';

const options = { mode: 'token_ids' } as const;
const prompt = { prompt_token_ids: [7, 8] };
const role = event({ delta: { role: 'assistant', content: '' } }, prompt);
const said = (content: string, ids: readonly unknown[] | null, usage?: object) =>
  event({ delta: { content }, token_ids: ids }, usage === undefined ? {} : { usage });
const plain = (content: string) => event({ delta: { content } });
const chunk = (text: string, more: object = {}, usage?: object): string => {
  const head = { id: 'two', object: 'text_completion', created: 9, model: 'x' };
  const choices = [{ index: 0, text, logprobs: null, finish_reason: null, ...more }];
  return `data: ${JSON.stringify({ ...head, choices, ...(usage === undefined ? {} : { usage }) })}\n\n`;
};
const continued = (content: string, finish: string | null = null): string =>
  event({ delta: { content }, logprobs: null, finish_reason: finish });

function begun(more: object = {}, bytesMax?: number): StreamClient {
  const client = new StreamClient({ ...options, body: { ...request, ...more }, bytesMax });
  client.attempt();
  return client;
}

test('ids are kept from a client that did not ask, wherever they stand', () => {
  const client = begun();
  const roleChunk = event({ delta: { role: 'assistant', content: '' } });
  expect(client.push(role)).toBe('');
  expect(client.push(said('a', [1]))).toBe(roleChunk + plain('a'));
  expect(client.push(said('b', [2], usageOf(2, 2)))).toBe(plain('b'));
  const alone = '"token_ids" : [3] , "prompt_token_ids":null';
  const item = `{"index":0,"delta":{"content":"c"},${alone}}`;
  expect(client.push(`data: {"choices":[${item}],"usage":null,"prompt_token_ids":null}\n\n`)).toBe(
    'data: {"choices":[{"index":0,"delta":{"content":"c"}}]}\n\n',
  );
  const first = '{"token_ids":[4],"prompt_token_ids":[],"index":0,"delta":{"content":"d"}}';
  expect(client.push(`data: {"prompt_token_ids":[],"choices":[${first}]}\n\n`)).toBe(
    'data: {"choices":[{"index":0,"delta":{"content":"d"}}]}\n\n',
  );
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1, 2, 3, 4], max_tokens: 5 });
  expect(client.path).toBe(completionPath('/v1/chat/completions'));
});

test('a completion is given back as the chat it continues', () => {
  const client = begun();
  client.push(role, said('a', [1]));
  client.break();
  client.attempt();
  const first = { token_ids: [2], prompt_token_ids: [7, 8, 1] };
  expect(client.push(chunk(' "b"', first, usageOf(3, 1)))).toBe(continued(' "b"'));
  expect(client.push(chunk('', { token_ids: [3], finish_reason: 'stop' }), done)).toBe(
    continued('', 'stop') + done,
  );
  expect(client.end).toBe('complete');
});

test('a client that asks for ids keeps them', () => {
  const client = begun({ return_token_ids: true });
  expect(client.push(role, said('a', [1, 2]))).toBe(role + said('a', [1, 2]));
  client.break();
  client.attempt();
  const text = client.push(chunk('b', { token_ids: [3], prompt_token_ids: [7, 8, 1, 2] }));
  expect(text).toBe(
    event({ delta: { content: 'b' }, logprobs: null, finish_reason: null, token_ids: [3] }),
  );
});

test('a token without its text waits for it, and is generated again behind a break', () => {
  const client = begun();
  client.push(role, said('a', [1]));
  expect(client.push(said('', [2]))).toBe('');
  expect(client.push(said('漢', [3]))).toBe(plain('') + plain('漢'));
  expect(client.push(said('', [4]))).toBe('');
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1, 2, 3], max_tokens: 6 });
});

test('it waits through events that bring neither', () => {
  const client = begun();
  client.push(role, said('a', [1]), said('', [2]));
  const empty = event({ delta: {} }, { usage: usageOf(2, 2) });
  expect(client.push(empty, ': ping\n\n', said('', null))).toBe('');
  expect(client.delivery.usage.completion).toBe(1);
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1], max_tokens: 8 });
});

test('more than can wait is given; its ids are not gone on behind, twice the client has none', () => {
  const padded = event({ delta: { content: '' }, token_ids: [2] }, { pad: 'x'.repeat(20_000) });
  for (const [wantsIds, end] of [
    [false, 'handOver'],
    [true, 'fail'],
  ] as const) {
    const client = begun({ return_token_ids: wantsIds });
    client.push(role, said('a', [1]));
    expect(client.push(padded)).toContain('"pad"');
    expect(client.break()).toBe(end);
    if (!wantsIds) expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1], max_tokens: 8 });
  }
  const client = begun({ return_token_ids: true });
  client.push(role, said('a', [1]), padded, said('b', [3]));
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1, 2, 3], max_tokens: 6 });
});

test('what is given at the end is counted', () => {
  const client = begun();
  client.push(role, said('a', [1]), said('', [2]));
  expect(client.delivery.usage.completion).toBe(1);
  expect(client.break(failures.clientDeadline)).toBe('fail');
  expect(client.text).toContain(plain('a') + plain(''));
  expect(client.delivery.usage).toEqual({ prompt: 2, completion: 2, cached: -1 });
});

test('tokens are counted by their ids where no usage comes', () => {
  const client = begun();
  expect(client.delivery.usage).toEqual({ prompt: -1, completion: 0, cached: -1 });
  client.push(role, said('a', [1, 2]), said('', [3]));
  expect(client.break()).toBe('handOver');
  expect(client.used).toEqual([{ prompt: 2, completion: 2, cached: -1 }]);
  client.attempt();
  client.push(chunk('b', { token_ids: [3] }), chunk('', { finish_reason: 'stop' }), done);
  expect(client.used[1]).toEqual({ prompt: -1, completion: 1, cached: -1 });
});

test('a client that asks for usage gets it by the ids where no usage comes', () => {
  const client = begun({ stream_options: { include_usage: true } });
  const text = client.push(role, said('a', [1, 2]), said('b', [3]), done);
  expect(text).toContain('"usage":{"prompt_tokens":2,"total_tokens":5,"completion_tokens":3}');
  expect(client.used).toEqual([{ prompt: 2, completion: 3, cached: -1 }]);
});

test('only the ids of the prompt may make an event large', () => {
  const large = 'x'.repeat(eventBytesMaxDefault);
  const more = { messages: [{ role: 'user', content: 'x'.repeat(200_000) }] };
  const client = begun(more);
  const padded = event({ delta: { role: 'assistant', content: '' } }, { pad: large });
  const named = event({ delta: {} }, { ...prompt, pad: large });
  expect(client.push(padded, named)).toContain(padded);
  expect(client.push(said('a', [1]))).toContain(plain('a'));
  const late = event({ delta: { content: 'b' }, token_ids: [2] }, { pad: large });
  expect(client.push(late)).toBe('');
  expect(client.end).toBe('handOver');
  // The one that goes on names those of its own prompt.
  client.attempt();
  const again = { token_ids: [2], prompt_token_ids: [7, 8, 1] };
  expect(client.push(chunk(large, again))).toContain(large);
  expect(client.push(chunk(large, { token_ids: [3] }))).toBe('');
  expect(client.end).toBe('handOver');
});

test('reasoning does not wait; a stream that breaks inside it is not continued', () => {
  const client = begun();
  client.push(role);
  const thought = event({ delta: { reasoning: 'hm' }, token_ids: [1] });
  expect(client.push(thought)).toContain('"reasoning":"hm"');
  expect(client.break()).toBe('fail');
});

test('the prompt is counted where nobody has said it', () => {
  const client = begun({ stream_options: { include_usage: true } });
  client.push(role, said('a', [1, 2]));
  client.break();
  client.attempt();
  const usage = `data: ${JSON.stringify({ choices: [], usage: usageOf(4, 1) })}\n\n`;
  const text = client.push(chunk('b', { token_ids: [3], finish_reason: 'stop' }), usage, done);
  expect(text).toContain('"usage":{"prompt_tokens":2,"total_tokens":5,"completion_tokens":3}');
});

describe.each([
  ['no ids', [role, plain('a')]],
  ['ids that are null', [role, said('a', null)]],
  ['ids before those of the prompt', [said('', [1]), role, said('a', [2])]],
  ['no ids of one event', [role, said('a', [1]), plain('b'), said('c', [2])]],
  ['no ids of the prompt', [event({ delta: { role: 'assistant' } }), said('a', [1])]],
  ['fewer ids than tokens', [role, said('a', [1], usageOf(2, 1)), said('b', [2], usageOf(2, 3))]],
  ['an id that is none', [role, said('a', ['x'])]],
  ['an id below 0', [role, said('a', [-1])]],
  ['a fraction', [role, said('a', [1.5])]],
  ['a list in a list', [role, said('a', [[1]])]],
  ['an id too large', [role, said('a', [2 ** 31])]],
  [
    'a digit flood',
    [
      role,
      said('a', ['9'.repeat(400)])
        .replaceAll('"9', '9')
        .replaceAll('9"', '9'),
    ],
  ],
])('%s', (_, events) => {
  test('is not continued', () => {
    const client = begun();
    const text = client.push(...events);
    expect(text).not.toContain('token_ids');
    expect(text).not.toBe('');
    expect(client.break()).toBe('fail');
  });
});

test('ids over the cap are not kept; the prompt counts', () => {
  for (const [bytesMax, end] of [
    [16, 'handOver'],
    [15, 'fail'],
  ] as const) {
    const client = begun({}, bytesMax);
    client.push(role, said('a', [1]), said('b', [2]));
    expect(client.break(), String(bytesMax)).toBe(end);
  }
});

test('an attempt that fails before it goes on changes nothing', () => {
  const client = begun();
  client.push(role, said('a', [1]));
  client.break();
  client.attempt();
  client.push(chunk('', { token_ids: [5], prompt_token_ids: [7, 8, 1] }));
  expect(client.break()).toBe('fail'); // not committed: the scheduler decides
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1], max_tokens: 8 });
  client.push(chunk('b', { token_ids: [2] }));
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: [7, 8, 1, 2], max_tokens: 7 });
});

test('no token left: the end is written here', () => {
  const client = begun({ max_tokens: 2 });
  client.push(role, said('a', [1, 2]));
  expect(client.break()).toBe('complete');
  expect(client.text).toContain('"finish_reason":"length"');
  expect(client.text.endsWith(done)).toBe(true);
});
