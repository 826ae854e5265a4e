/** What a client is given of a stream, and of the attempts that continue it. */
import { expect, test } from 'vitest';
import { Break } from '../../../src/forwarder/delivery.ts';
import { failures } from '../../../src/forwarder/failure.ts';
import { eventBytesMaxDefault } from '../../../src/protocol/sse-scanner.ts';
import { Asks } from '../../../src/protocol/stream-options.ts';
import {
  done,
  event,
  finish,
  last,
  request,
  role,
  StreamClient,
  said,
  usageOf,
} from '../../support/stream-client.ts';

test('a stream that does not break is passed on as it is', () => {
  const client = new StreamClient();
  client.attempt();
  const events = [role(), said('a'), ': ping\n\n', said(' b'), finish(), done];
  expect(client.push(...events)).toBe(events.join(''));
  expect(client.end).toBe('complete');
});

test('usage that the client did not ask for is taken out', () => {
  const client = new StreamClient();
  client.attempt();
  const text = client.push(role(), said('a', 'one', usageOf(5, 1)), last(usageOf(5, 1)), finish());
  expect(text).toBe(role() + said('a') + finish());
  expect(client.delivery.usage).toEqual({ prompt: 5, completion: 1, cached: -1 });
});

test('another replica goes on: one id, one role, the limit reduced', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a\n"b', 'one', usageOf(5, 4)), said(' c', 'one', usageOf(5, 6)));
  expect(client.break()).toBe('handOver');
  const { messages, max_tokens } = client.attempt();
  expect([messages.at(-1)?.content, max_tokens]).toEqual(['a\n"b c', 3]);
  expect(client.push(role('two'))).toBe('');
  const withRole = event({ delta: { role: 'assistant', content: ' d' } }, {}, 'two');
  expect(client.push(withRole)).toBe(said(' d'));
  expect(client.push(finish('two'), done)).toBe(finish() + done);
});

test('usage at the end is that of all attempts', () => {
  const client = new StreamClient({
    body: { ...request, stream_options: { include_usage: true } },
  });
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 4)));
  client.break();
  client.attempt();
  const text = client.push(said('b', 'two'), finish('two'), last(usageOf(9, 2), 'two'), done);
  expect(text).toContain('"usage":{"prompt_tokens":5,"total_tokens":11,"completion_tokens":6}');
  expect(text).toContain('"id":"one","choices":[]');
  expect(client.delivery.usage).toEqual({ prompt: -1, completion: 2, cached: -1 });
});

test('without usage an event with text is one token, and the prompt is found by subtraction', () => {
  const client = new StreamClient({
    body: { ...request, stream_options: { include_usage: true } },
  });
  client.attempt();
  client.push(role(), said('a'), said('b'));
  client.break();
  expect(client.attempt().max_tokens).toBe(7);
  const text = client.push(said('c', 'two'), finish('two'), last(usageOf(12, 1), 'two'), done);
  expect(text).toContain('"prompt_tokens":10,"total_tokens":13,"completion_tokens":3');
});

test('no token left: the end is written here', () => {
  const client = new StreamClient({
    body: { ...request, max_tokens: 2, stream_options: { include_usage: true } },
  });
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)), said('b', 'one', usageOf(5, 2)));
  const before = client.text.length;
  expect(client.break()).toBe('complete');
  const rest = client.text.slice(before);
  expect(rest).toMatch(/"finish_reason":"length"}\]}\n\ndata: .*"completion_tokens":2}}\n\n/);
  expect(rest.endsWith(done)).toBe(true);
});

test('white space at the end waits for what follows', () => {
  const client = new StreamClient();
  client.attempt();
  expect(client.push(role(), said('a'))).not.toBe('');
  expect(client.push(said(' \n'), ': ping\n\n', said('\u3000'))).toBe('');
  expect(client.push(said('b'))).toBe(`${said(' \n')}: ping\n\n${said('\u3000')}${said('b')}`);
  expect(client.push(said('c '))).toBe('');
  expect(client.break()).toBe('handOver');
  expect(client.attempt().messages.at(-1)?.content).toBe('a \n\u3000b');
  expect(client.push(said('c d', 'two'), said(' ', 'two'), finish('two'))).toBe(
    said('c d') + said(' ') + finish(),
  );
});

test('white space that came is not kept from a client whose stream ends', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a'), said(' '));
  expect(client.break(failures.clientDeadline)).toBe('fail');
  expect(client.text).toBe(role() + said('a') + said(' '));
});

test('a completion keeps its white space and goes on behind its prompt', () => {
  const shape = 'openai-completions';
  const client = new StreamClient({ shape, body: { prompt: 'p', max_tokens: 9 } });
  client.attempt();
  const chunk = event({ text: 'a ' });
  expect(client.push(chunk)).toBe(chunk);
  expect(client.break()).toBe('handOver');
  expect(client.attempt()).toMatchObject({ prompt: 'pa ', max_tokens: 8 });
  expect(client.push(event({ text: 'b' }, {}, 'two'))).toBe(event({ text: 'b' }));
});

test.each([
  ['reasoning without an answer', [event({ delta: { reasoning_content: 'hm' } })]],
  ['thoughts in the text', [said('<think>hm')]],
  ['a tool call', [said('a'), event({ delta: { tool_calls: [{ index: 0 }] } })]],
  ['log probabilities', [event({ delta: { content: 'a' }, logprobs: { content: [] } })]],
  ['another choice', [event({ index: 1, delta: { content: 'a' } })]],
  ['an event that is no JSON', [said('a'), 'data: {"x\n\n']],
  ['a text over the cap', [said('a'.repeat(2000))]],
])('%s is not continued', (_, events) => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), ...events);
  expect(client.break()).toBe('fail');
});

test('reasoning and thoughts that are over do not matter', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(event({ delta: { reasoning: 'hm' } }), said('<think>hm</think>a'));
  expect(client.break()).toBe('handOver');
});

test.each([
  ['truncated', Break.continues],
  ['reset', Break.continues],
  ['interTokenTimeout', Break.continues],
  ['errorEvent', Break.continues],
  ['deadline', Break.ends],
  ['clientDeadline', Break.ends],
  ['clientGone', Break.ends],
  ['stopping', Break.ends],
] as const)('%s', (name, expected) => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a'));
  expect(client.delivery.onBreak(failures[name])).toBe(expected);
});

test('an attempt that fails before it goes on changes nothing', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)));
  client.break();
  client.attempt();
  client.push(role('two'), said(' ', 'two'));
  expect(client.break()).toBe('fail'); // not committed: the scheduler decides
  const { messages, max_tokens } = client.attempt();
  expect([messages.at(-1)?.content, max_tokens]).toEqual(['a', 8]);
});

test.each([
  ['an error', 'data: {"error":{"message":"late"}}\n\n'],
  ['an event too large', `data: "${'x'.repeat(eventBytesMaxDefault)}"\n\n`],
])('nothing goes on behind a finish: %s before [DONE]', (_, late) => {
  const client = new StreamClient({
    body: { ...request, stream_options: { include_usage: true } },
  });
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)), finish());
  const before = client.text.length;
  client.push(late);
  expect(client.end).toBe('complete');
  const rest = client.text.slice(before);
  expect(rest).toMatch(/^data: {[^\n]*"choices":\[],"usage":[^\n]*}\n\ndata: \[DONE]\n\n$/);
  expect(client.text.match(/"finish_reason":"/g)).toHaveLength(1);
});

test('an error behind a finish ends a stream that lost an event', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a'), 'data: {"x\n\n', finish(), 'data: {"error":{}}\n\n');
  expect(client.end).toBe('fail');
});

test('white space that is given at the end is counted', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)), said(' ', 'one', usageOf(5, 2)));
  expect(client.delivery.usage.completion).toBe(1);
  expect(client.break(failures.clientDeadline)).toBe('fail');
  expect(client.text).toBe(role() + said('a') + said(' '));
  expect(client.delivery.usage).toEqual({ prompt: 5, completion: 2, cached: -1 });
});

test.each([
  [Asks.usageAtEnd, { include_usage: true }],
  [Asks.nothing, undefined],
])('who takes %i of the usage is asked to go on with no more', (takes, options) => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)));
  client.break();
  const sent = client.attempt(takes);
  expect(sent.messages.at(-1)?.content).toBe('a');
  expect(sent).toMatchObject({ continue_final_message: true, max_tokens: 8 });
  expect((sent as { stream_options?: object }).stream_options).toEqual(options);
  // Some say null in every chunk where they are asked for the usage at the end.
  const silent = said(' b', 'two').replace('"choices"', '"usage":null,"choices"');
  expect(silent).toContain('null');
  expect(client.push(silent)).toBe(said(' b'));
  client.push(finish('two'), last(usageOf(6, 1)), done);
  expect(client.end).toBe('complete');
  expect(client.used.at(-1)).toMatchObject({ completion: 1 });
});

test('a byte order mark before the events of who goes on is no part of the stream', () => {
  const client = new StreamClient();
  client.attempt();
  client.push(role(), said('a', 'one', usageOf(5, 1)));
  client.break();
  client.attempt();
  expect(client.push(`\ufeff${said(' b', 'two')}`)).toBe(said(' b'));
});
