import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import type { Config } from '../../../src/config/schema.ts';
import type { Arrival } from '../../../src/dispatch/arrival.ts';
import { adapterSalt } from '../../../src/lib/adapter-salt.ts';
import { prefixDepths } from '../../../src/protocol/prefix-hash.ts';
import { tenantLane } from '../../../src/protocol/request-keys.ts';
import { engineModel } from '../../../src/replica/engine/engine-model.ts';
import { createReplay } from '../../../src/simulation/replay/replay.ts';
import { readRequestLog } from '../../../src/simulation/replay/request-log.ts';

const config = configOf();

function configOf(): Config {
  const replicas = [
    { url: 'http://a:1', adapters: ['poet'] },
    { url: 'http://b:1', weight: 2, max_in_flight: 7 },
  ];
  const models = [
    { name: 'other', replicas: [{ url: 'http://c:1' }] },
    { name: 'm', aliases: ['alias'], replicas, session_affinity: false },
  ];
  const loaded = configFromObject({ queue: { hold_tokens: 500 }, models });
  if (!loaded.ok) throw new Error('the config is good');
  return loaded.config;
}

const chat = (content: string, more: object = {}) => ({
  ...{ model: 'm', stream: true, messages: [{ role: 'user', content }] },
  ...more,
});
const log = (...lines: readonly object[]) =>
  readRequestLog(lines.map((line, i) => JSON.stringify({ at_ms: i, ...line })).join('\n'));
const replay = (...lines: readonly object[]) =>
  createReplay(log(...lines), config, engineModel('8b-h100'));

function told(request: number, ...lines: readonly object[]): Arrival {
  const arrival = {} as Arrival;
  replay(...lines)
    .gateway()
    .view.read(request, 1e6, arrival);
  return arrival;
}

test('lines are taken in order of arrival, with bodies to the byte', () => {
  const text = '{ "model":"m",  "prompt":"\\u0041" }';
  const requests = readRequestLog(
    `{"at_ms": 2, "body": ${JSON.stringify(text)}}\n\n{"at_ms": 1.5, "body": {"model": "m"}}\n`,
  );
  expect(requests.map(({ line, atUs }) => [line, atUs])).toEqual([
    [3, 1500],
    [1, 2000],
  ]);
  expect(requests.map(({ body }) => body.toString())).toEqual(['{"model":"m"}', text]);
});

test('a gateway is told what the acceptor would read', () => {
  const headers = { Authorization: 'Bearer k', 'x-sluice-priority': '-7' };
  const deadline = { 'x-sluice-deadline-ms': '250' };
  const body = chat('hello', { max_tokens: 9, session_id: 's' });
  const arrival = told(0, { body, headers: { ...headers, ...deadline } });
  expect(arrival).toMatchObject({
    ...{ model: 1, adapter: 0, priority: -7, tenant: tenantLane('Bearer k'), maxTokens: 9 },
    ...{ promptTokens: 0, promptBytes: JSON.stringify(body.messages).length, streams: true },
    ...{ textBytes: JSON.stringify(body.messages).length, readsMore: false },
    deadlineUs: 1e6 + 250_000,
  });
  const plain = told(1, { body }, { body: chat('x', { stream: false }) });
  expect(plain).toMatchObject({ priority: 0, tenant: 0, streams: false, session0: 0 });
  expect(plain.deadlineUs).toBe(1e6 + 600e6);
  expect(arrival.session0).not.toBe(0);
});

test('equal prompts of two adapters are told apart', () => {
  const prompt = 'x'.repeat(3 * 2048);
  const { view } = replay(
    { body: chat(prompt) },
    { body: chat(prompt, { model: 'poet' }) },
  ).gateway();
  const [base, poet] = [new Int32Array(24), new Int32Array(24)];
  expect(view.writeHashes(0, base, 0)).toBe(3);
  expect(view.writeHashes(1, poet, 0)).toBe(3);
  expect([...poet.slice(0, 6)]).toEqual([...base.slice(0, 6)].map((word) => word ^ adapterSalt(1)));
  expect(prefixDepths.slice(0, 3)).toEqual([1, 2, 3]);
});

test('usage is told by whole answers and by streams that were asked for it', () => {
  const bodies = [
    chat('a'),
    chat('a', { stream_options: { include_usage: true } }),
    chat('a', { stream: false }),
  ];
  const { view } = replay(...bodies.map((body) => ({ body }))).gateway();
  expect(bodies.map((_, i) => view.tellsUsage(i))).toEqual([false, true, true]);
});

test('the brain has the rules and replicas of the config', () => {
  const { gateway, model } = replay({ body: chat('a', { model: 'alias' }) });
  expect(model.name).toBe('m');
  const { models, facts, queueMax } = gateway('lmetric');
  expect(models.map(({ policy }) => policy)).toEqual(['marginal_cost', 'lmetric']);
  expect(models[1]).toMatchObject({ sessionAffinity: false, holdTokens: 500 });
  expect(queueMax).toBe(1000);
  expect(facts(0).adapters?.[0]).toBe(1);
  expect(facts(1)).toMatchObject({ model: 1, weight: 2, maxInFlight: 7, prefillUs: 21.2 });
});

test('prompts that begin alike share the blocks of their beginning', () => {
  const head = 'y'.repeat(480);
  const { workload } = replay(
    { body: chat(head + '1'.repeat(99)) },
    { body: chat(head + '2'.repeat(99)) },
  );
  const [a, b] = [0, 1].map((i) =>
    workload.blocks.subarray(workload.blockStart[i], workload.blockStart[i + 1]),
  );
  const shared = a!.findIndex((block, i) => block !== b![i]);
  expect(shared).toBeGreaterThanOrEqual(10); // 480 bytes are ten blocks of 16 tokens of 3 bytes
});

test.each([
  [{ body: chat('a', { model: 'nobody' }) }, 'line 1: unknown model nobody'],
  [{ body: '{"model":' }, 'line 1: '],
  [{ body: chat('a', { n: 2 }) }, 'more than one answer'],
  [{ body: chat('a'), path: '/v1/embeddings' }, '/v1/embeddings generates nothing'],
  [{ body: chat('a'), headers: { 'x-sluice-priority': 'high' } }, 'x-sluice-priority must be'],
  [{ body: chat('a'), at: 3 }, 'at'],
  [{ body: chat('a'), output_tokens: 500_000 }, 'does not fit'],
])('%j is refused', (line, reason) => {
  expect(() => replay(line)).toThrow(reason);
});

test('requests of two models are refused', () => {
  const other = { body: chat('a', { model: 'other' }) };
  expect(() => replay({ body: chat('a') }, other)).toThrow('line 2: is for another model');
});
