/** Streams that are asked for their usage although their clients do not want it. */
import { expect, test } from 'vitest';
import { Delivery } from '../../../src/forwarder/delivery.ts';
import { planUsage } from '../../../src/protocol/continuation.ts';
import { observedBody } from '../../../src/protocol/continued-body.ts';
import { Asks } from '../../../src/protocol/stream-options.ts';
import {
  done,
  event,
  finish,
  last,
  role,
  StreamClient,
  said,
  usageOf,
} from '../../support/stream-client.ts';

const body = (more: object = {}) => ({ messages: [{ role: 'user', content: 'x' }], ...more });
const asked = (more: object, asks: Asks = Asks.usageAtEnd): unknown => {
  const bytes = Buffer.from(JSON.stringify(body(more)));
  const plan = planUsage(bytes, 'openai-chat', asks);
  return plan && JSON.parse(observedBody(bytes, plan).toString()).stream_options;
};

test('it is asked for where the client does not, at the end or always', () => {
  expect(asked({})).toEqual({ include_usage: true });
  expect(asked({}, Asks.usageAlways)).toEqual({
    include_usage: true,
    continuous_usage_stats: true,
  });
  expect(asked({ tools: [{}], logprobs: true, n: 3 })).toEqual({ include_usage: true });
  const options = { include_usage: false, other: 1 };
  expect(asked({ stream_options: options })).toEqual({ include_usage: true, other: 1 });
  expect(asked({ stream_options: { include_usage: true } })).toBe(undefined);
  expect(asked({ stream_options: { include_usage: true } }, Asks.usageAlways)).toEqual({
    ...{ include_usage: true, continuous_usage_stats: true },
  });
});

test('options are found and kept under escaped keys', () => {
  const of = (text: string, asks: Asks): string | undefined => {
    const bytes = Buffer.from(text);
    const plan = planUsage(bytes, 'openai-chat', asks);
    return plan && observedBody(bytes, plan).toString();
  };
  const wanted = '{"stream\\u005foptions":{"include\\u005fusage":true}}';
  expect(of(wanted, Asks.usageAtEnd)).toBe(undefined);
  expect(of(wanted, Asks.usageAlways)).toBe(
    '{"stream\\u005foptions":{"include_usage":true,"continuous_usage_stats":true}}',
  );
  const plan = planUsage(Buffer.from(wanted), 'openai-chat', Asks.usageAlways);
  expect(plan, 'the usage is not taken out').toMatchObject({ wantsUsage: true });
  expect(of('{"stream\\u005foption":{}}', Asks.usageAtEnd)).toBe(
    '{"stream\\u005foption":{},"stream_options":{"include_usage":true}}',
  );
});

test.each([
  [{}, Asks.usageAlways, Asks.usageAlways, true],
  [{}, Asks.usageAtEnd, Asks.usageAtEnd, false],
  [{ include_usage: true }, Asks.usageAlways, Asks.usageAlways, true],
  [{ include_usage: true }, Asks.usageAtEnd, Asks.nothing, undefined],
])('asked by %j at a replica that takes %i: %i is added', (options, takes, adds, always) => {
  const bytes = Buffer.from(JSON.stringify(body({ stream_options: options })));
  const plan = planUsage(bytes, 'openai-chat', Asks.usageAlways);
  const sent = new Delivery(plan!, 0).begin('/', bytes, [], takes);
  expect(sent.adds).toBe(adds);
  const { include_usage: isAsked, continuous_usage_stats: isAlways } = JSON.parse(
    sent.body.toString(),
  ).stream_options;
  expect(isAsked).toBe(true);
  expect(isAlways ?? false).toBe(always ?? false);
});

test('the client gets its stream without it, the rest byte for byte', () => {
  const client = new StreamClient({ body: body({ tools: [{}] }), mode: 'usage' });
  client.attempt();
  const call = event({ delta: { tool_calls: [{ index: 0, function: { arguments: '{' } }] } });
  const rest = [role(), ': ping\n\n', call, said('a '), said(' ')];
  expect(client.push(...rest, finish(), last(usageOf(5, 7)), done)).toBe(
    `${rest.join('')}${finish()}${done}`,
  );
  expect(client.end).toBe('complete');
  expect(client.used).toEqual([{ prompt: 5, completion: 7, cached: -1 }]);
});

test('a stream that breaks, or ends by its reason alone, is given nothing of ours', () => {
  const broken = new StreamClient({ body: body(), mode: 'usage' });
  broken.attempt();
  broken.push(role(), said('a'), said('b'));
  expect(broken.break()).toBe('fail');
  expect(broken.text).toBe(role() + said('a') + said('b'));
  expect(broken.delivery.usage, 'events with tokens are counted').toEqual({
    ...{ prompt: -1, completion: 2, cached: -1 },
  });
  const short = new StreamClient({ body: body(), mode: 'usage' });
  short.attempt();
  short.push(role(), said('a'), finish());
  expect(short.break()).toBe('complete');
  expect(short.text).toBe(role() + said('a') + finish());
});

test('usage of every chunk is taken out of each', () => {
  const client = new StreamClient({ body: body(), mode: 'usage' });
  client.attempt();
  const text = client.push(
    role(),
    said('a', 'one', usageOf(5, 3)),
    said('b', 'one', usageOf(5, 6)),
  );
  expect(text).toBe(role() + said('a') + said('b'));
  expect(client.delivery.usage).toEqual({ prompt: 5, completion: 6, cached: -1 });
});
