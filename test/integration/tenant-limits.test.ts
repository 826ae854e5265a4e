/**
 * Limits of tenants through the whole gateway: as many as the bucket has, over two acceptors; what was not
 * used comes back; what a client is told. Both engines.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { nowMs } from '../../src/lib/clock.ts';
import { createRequestTemplate } from '../../src/load/request-template.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, load, model, post } from '../support/scenario.ts';
import { crash, faultEnv, restarted } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

const token = 'faults';
const keys = new Map<string, string>();
const keyOf = (tenant: string): string => {
  const key = keys.get(tenant) ?? newKey();
  keys.set(tenant, key);
  return key;
};
const bearer = (tenant: string) => ({ authorization: `Bearer ${keyOf(tenant)}` });

interface Left {
  readonly remaining: number;
  readonly full_in_ms: number;
}
interface LimitsView {
  readonly requests: Left | null;
  readonly input_tokens: Left | null;
  readonly output_tokens: Left | null;
  readonly concurrency: { readonly running: number } | null;
}

describe.each(testEngines)('limits, engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;

  const tenant = (name: string, limits: object, more: object = {}) => ({
    ...{ name, limits, keys: [{ id: 'one', sha256: sha256Of(keyOf(name)) }] },
    ...more,
  });
  const file = (): ConfigInput => ({
    listen: { engine },
    admin: { token },
    threads: { acceptors: 2 },
    tenants: [
      tenant('free', {}),
      tenant('day', { requests_per_minute: 2, burst: '24h' }),
      tenant('rate', { requests_per_minute: 3000, burst: '10s' }),
      tenant('few', { requests_per_minute: 6, burst: '20s' }),
      tenant('tokens', { output_tokens_per_minute: 1200, burst: '60s' }),
      tenant('input', { input_tokens_per_minute: 600, burst: '10s' }),
      tenant('rerank', { input_tokens_per_minute: 600, burst: '10s' }),
      tenant('system', { input_tokens_per_minute: 600_000, burst: '60s' }),
      tenant('slow', { requests_per_minute: 1, burst: '60s' }),
      tenant('streams', { output_tokens_per_minute: 60, burst: '60s' }),
      tenant('narrow', { concurrency: 3 }),
      tenant('model', {}, { model_limits: { m: { requests_per_minute: 2, burst: '60s' } } }),
    ],
    models: [
      { name: 'm', replicas: [{ url: replica.url }] },
      { name: 'n', replicas: [{ url: replica.url }] },
      { name: 'system', replicas: [{ url: replica.url }] },
    ],
  });

  async function limitsOf(name: string): Promise<LimitsView> {
    const page = await fetch(`${gateway.adminUrl}/admin/tenants`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const { tenants } = (await page.json()) as { tenants: { name: string; limits: LimitsView }[] };
    return tenants.find((each) => each.name === name)!.limits;
  }
  const ask = (name: string, more: object = {}, prompt = 'x') =>
    post(gateway.url, chatBody(prompt, more), bearer(name));

  beforeAll(async () => {
    replica = await replicaInProcess({ profile: 'instant' });
    gateway = await gatewayProcess({ config: file(), env: faultEnv });
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
  });

  /** Requests of a tenant from 8 connections over the two acceptors: how many were let in, of how many. */
  async function flood(name: string, requestsMax: number, requestRate: number): Promise<number> {
    const template = createRequestTemplate(
      {
        ...{ endpoint: chatPath, model, stream: false, inputTokens: 0, promptBytes: 0 },
        ...{ outputTokens: 4, ignoreEos: false, seed: 1 },
      },
      new URL(gateway.url).host,
      bearer(name),
    );
    const plan = { connections: 8, requestsMax, requestRate, template };
    const { statuses } = (await load(gateway, plan)).metrics;
    const [ok = 0, limited = 0] = [statuses.get(200), statuses.get(429)];
    expect(ok + limited).toBe(requestsMax);
    expect(limited, 'more was asked for than there was').toBeGreaterThan(500);
    return ok;
  }

  test('requests: of 10,000 as many as the bucket has, and not one more', async () => {
    const [burst, perSecond] = [2880, 2 / 60];
    const sentMs = nowMs();
    const ok = await flood('day', 10_000, Number.POSITIVE_INFINITY);
    // The clock of the gateway, on which no more time passed. No drop runs in before half a minute is over.
    const ranIn = Math.floor(((nowMs() - sentMs) / 1000) * perSecond);
    expect(ok).toBeGreaterThanOrEqual(burst);
    expect(ok).toBeLessThanOrEqual(burst + ranIn);
  });

  test('requests: at three times the rate what ran in goes out, each drop once', async () => {
    const [perSecond, burst] = [50, 500];
    const sentMs = nowMs();
    // It takes seconds to fill after these: from here on the bucket is not full.
    const first = 400;
    const asked = await Promise.all(Array.from({ length: first }, () => ask('rate')));
    expect(asked.every(({ status }) => status === 200)).toBe(true);
    const before = await fullAt('rate');
    expect(before.ms, 'it is not full').toBeGreaterThan(nowMs());
    const ok = await flood('rate', 1800, 3 * perSecond);

    expect(first + ok).toBeLessThanOrEqual(burst + ((nowMs() - sentMs) / 1000) * perSecond);
    const after = await fullAt('rate');
    // Each one moves the moment on at which the bucket is full again, by the time of a drop.
    const taken = ((after.ms - before.ms) / 1000) * perSecond;
    expect(((after.errorMs + before.errorMs) / 1000) * perSecond).toBeLessThan(0.5);
    expect(Math.round(taken)).toBe(ok);
  });

  /** When the bucket of requests will be full, on the clock of the machine. */
  async function fullAt(name: string): Promise<{ ms: number; errorMs: number }> {
    let best = { ms: 0, errorMs: Number.POSITIVE_INFINITY };
    for (let i = 0; i < 40 && best.errorMs > 2; i++) {
      const askedMs = nowMs();
      const { requests } = await limitsOf(name);
      const errorMs = (nowMs() - askedMs) / 2;
      if (errorMs < best.errorMs) best = { ms: askedMs + errorMs + requests!.full_in_ms, errorMs };
    }
    return best;
  }

  test('a client is told what it has left and when to come again', async () => {
    const [first, second, third] = [await ask('few'), await ask('few'), await ask('few')];
    expect([first, second, third].map(({ status }) => status)).toEqual([200, 200, 429]);
    expect(first!.headers.get('x-ratelimit-limit-requests')).toBe('6');
    expect(first!.headers.get('x-ratelimit-remaining-requests')).toBe('1');
    expect(second!.headers.get('x-ratelimit-remaining-requests')).toBe('0');
    expect(second!.headers.get('x-ratelimit-reset-requests')).toMatch(/^(19|20)(\.\d)?s$/);
    expect(JSON.parse(third!.text).error).toMatchObject({
      ...{ type: 'requests', code: 'rate_limit_exceeded' },
    });
    const waitMs = Number(third!.headers.get('retry-after-ms'));
    expect(waitMs).toBeGreaterThan(5000);
    expect(waitMs).toBeLessThanOrEqual(10_000);
    expect(third!.headers.get('retry-after')).toBe(String(Math.ceil(waitMs / 1000)));
    expect((await ask('free')).headers.get('x-ratelimit-limit-requests')).toBe(null);
  });

  test('output: max_tokens is set aside and what was not used comes back', async () => {
    const answer = await ask('tokens', { max_tokens: 1000 }, '[[len=10]]');
    expect(answer.status).toBe(200);
    const used = JSON.parse(answer.text).usage.completion_tokens as number;
    expect(used).toBe(10);
    await eventually('it comes back', async () => {
      const left = (await limitsOf('tokens')).output_tokens!.remaining;
      return left >= 1200 - used;
    });
  });

  test('output: streams are asked what they used, errors and routes without output use nothing', async () => {
    const isBack = (used: number) =>
      eventually('the rest is back', async () => {
        return (await limitsOf('streams')).output_tokens!.remaining >= 60 - used;
      });
    for (let i = 1; i <= 6; i++) {
      const answer = await ask('streams', { stream: true, max_tokens: 40 }, '[[len=2]]');
      expect([answer.status, answer.text.includes('usage')], answer.text).toEqual([200, false]);
      await isBack(2 * i);
      expect((await ask('streams', { max_tokens: 40 }, '[[fault:status=400]]')).status).toBe(400);
      await isBack(2 * i);
      const texts = { model: 'm', input: 'x' };
      const embedded = await post(gateway.url, texts, bearer('streams'), '/v1/embeddings');
      expect(embedded.status).toBe(200);
      await isBack(2 * i);
    }
    expect((await limitsOf('streams')).output_tokens!.remaining).toBeLessThan(55);
  });

  test('tokens of the prompt', async () => {
    const prompt = 'word '.repeat(400);
    const statuses = [];
    for (let i = 0; i < 3; i++)
      statuses.push((await ask('input', { max_tokens: 1 }, prompt)).status);
    expect(statuses).toEqual([200, 429, 429]);
    const { text } = await ask('input', { max_tokens: 1 }, prompt);
    expect(JSON.parse(text).error.type).toBe('tokens');
  });

  test('tokens of documents, whatever the engine says of them', async () => {
    const documents = Array.from({ length: 10 }, () => 'word '.repeat(40));
    const rerank = { model: 'm', query: 'q', documents };
    const statuses = [];
    for (let i = 0; i < 3; i++) {
      statuses.push((await post(gateway.url, rerank, bearer('rerank'), '/v1/rerank')).status);
    }
    expect(statuses).toEqual([200, 429, 429]);
  });

  test('a prompt is not taken for four times as long after requests with a system prompt', async () => {
    const send = (system: string) =>
      post(
        gateway.url,
        { ...chatBody('hi', { model: 'system', max_tokens: 1 }), system },
        bearer('system'),
        '/v1/messages',
      );
    for (let i = 0; i < 3; i++) expect((await send('word '.repeat(3000))).status).toBe(200);
    await eventually('all are over', async () => replica.stats().in_flight === 0);
    const before = (await limitsOf('system')).input_tokens!.remaining;
    const bytes = 90_000;
    const held = ask('system', { model: 'system' }, `[[hold]]${'word '.repeat(bytes / 5)}`);
    await replica.gate.arrivals(1);
    // Some three bytes for each token; the bucket has not filled by as many meanwhile.
    const taken = before - (await limitsOf('system')).input_tokens!.remaining;
    replica.gate.release();
    expect((await held).status).toBe(200);
    expect(taken).toBeLessThan(bytes / 2);
  });

  test('so many at one time, and their places are free when they leave', async () => {
    const open = [1, 2, 3].map(() => ask('narrow', {}, '[[hold]]'));
    await replica.gate.arrivals(3);
    expect((await ask('narrow')).status).toBe(429);
    expect((await limitsOf('narrow')).concurrency!.running).toBe(3);
    replica.gate.release();
    for (const { status } of await Promise.all(open)) expect(status).toBe(200);
    await eventually('all are over', async () => {
      return (await limitsOf('narrow')).concurrency!.running === 0;
    });
    expect((await ask('narrow')).status).toBe(200);
  });

  test('limits for a model, beside those of the tenant', async () => {
    const statuses = [];
    for (const model of ['m', 'm', 'm', 'n', 'n'])
      statuses.push((await ask('model', { model })).status);
    expect(statuses).toEqual([200, 200, 429, 200, 200]);
  });

  test('a scheduler that dies leaves the buckets as they are, and who runs keeps the place', async () => {
    const open = [1, 2].map(() => ask('narrow', {}, '[[hold]]'));
    await replica.gate.arrivals(2);
    expect((await ask('slow')).status).toBe(200);
    await crash(gateway, 'scheduler', 'dispatched', 'throw');
    // The fault may come to the scheduler after the next request has.
    let isBack = false;
    const back = restarted(gateway, 'scheduler', 1).finally(() => {
      isBack = true;
    });
    while (!isBack) await ask('free');
    await back;
    expect((await limitsOf('narrow')).concurrency!.running).toBe(2);
    expect((await limitsOf('slow')).requests!.remaining).toBe(0);
    expect((await ask('slow')).status).toBe(429);
    replica.gate.release();
    for (const { status } of await Promise.all(open)) expect(status).toBe(200);
    await eventually('all are over', async () => {
      return (await limitsOf('narrow')).concurrency!.running === 0;
    });
  });

  test('a reload changes limits and keeps what is in the buckets', async () => {
    const config = file();
    gateway.writeConfig({
      ...config,
      tenants: [
        tenant('free', { requests_per_minute: 60, burst: '60s' }),
        tenant('slow', { requests_per_minute: 1, burst: '60s' }),
      ],
    });
    expect((await limitsOf('slow')).requests!.remaining).toBe(0);
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    expect((await limitsOf('slow')).requests!.remaining).toBe(0);
    expect((await limitsOf('free')).requests!.remaining).toBe(60);
    expect((await ask('narrow')).status).toBe(401);
  });
});
