/**
 * `max_n` and `max_context` that a tenant has for one model, through the whole gateway: the smaller of these and
 * its own holds, for the model that a request comes to and for none that it goes on to. Both engines.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { type Answer, chatPath, post } from '../support/scenario.ts';

const token = 'caps';
const keys = { acme: newKey(), other: newKey() };
/** In a prompt: the replica of `first` fails it, the one of all others serves it. */
const failing = '[[fault@r-first:status=500]]';

interface ErrorBody {
  readonly error: { readonly code: string; readonly param: string; readonly message: string };
}
type Limits = NonNullable<NonNullable<ConfigInput['tenants']>[number]['model_limits']>;

const ofModels: Limits = {
  m: { max_n: 2, max_context: 600 },
  n: { max_n: 9, max_context: 9000 },
  first: { max_n: 1 },
  short: { max_context: 1000 },
};

describe.each(testEngines)('engine %s', (engine) => {
  let replica: Replica;
  let first: Replica;
  let gateway: GatewayProcess;

  const file = (model_limits: Limits): ConfigInput => {
    const replicas = [{ url: replica.url }];
    const key = (of: keyof typeof keys) => ({ id: 'one', sha256: sha256Of(keys[of]) });
    return {
      listen: { engine },
      admin: { token },
      retry: { budget: 1, budget_min: 100 },
      tenants: [
        {
          ...{ name: 'acme', keys: [key('acme')] },
          ...{ limits: { max_n: 3, max_context: 2000 }, model_limits },
        },
        { name: 'other', keys: [key('other')] },
      ],
      models: [
        { name: 'm', aliases: ['alias'], replicas },
        { name: 'n', replicas },
        { name: 'first', fallbacks: ['m'], replicas: [{ url: first.url }] },
        { name: 'small', cascade: { model: 'm' }, replicas },
        { name: 'short', max_context: 800, context_window_fallbacks: ['long'], replicas },
        { name: 'long', max_context: 1900, replicas },
      ],
      splits: [
        {
          name: 'both',
          models: [
            { model: 'm', weight: 1 },
            { model: 'n', weight: 1 },
          ],
        },
      ],
    };
  };

  beforeAll(async () => {
    replica = await replicaInProcess({ profile: 'instant' });
    first = await replicaInProcess({ profile: 'instant', name: 'r-first' });
    gateway = await gatewayProcess({ config: file(ofModels) });
  });
  afterAll(async () => {
    await gateway?.finish();
    await Promise.all([replica?.close(), first?.close()]);
  });

  const started = (): number => replica.stats().started + first.stats().started;
  const send = (path: string, body: object, more: object = {}, who: keyof typeof keys = 'acme') =>
    post(gateway.url, body, { authorization: `Bearer ${keys[who]}`, ...more }, path);
  const chat = (model: string, more: object = {}, headers: object = {}, content = 'x') =>
    send(
      chatPath,
      { model, messages: [{ role: 'user', content }], max_tokens: 4, ...more },
      headers,
    );
  async function refused(ask: () => Promise<Answer>): Promise<ErrorBody['error']> {
    const before = started();
    const { status, text } = await ask();
    expect(status).toBe(400);
    expect(started(), 'no replica was asked').toBe(before);
    return (JSON.parse(text) as ErrorBody).error;
  }
  const tooLarge = (most: number, got: number) => ({
    ...{ code: 'integer_above_max_value', param: 'n' },
    message: `Invalid 'n': integer above maximum value. Expected a value <= ${most}, but got ${got} instead.`,
  });
  const tooLong = (most: number) => ({
    code: 'context_length_exceeded',
    message: expect.stringContaining(`This model's maximum context length is ${most} tokens.`),
  });

  test('of the cap of the tenant and that for the model the smaller one holds', async () => {
    for (const [model, n, tokens] of [
      ['m', 2, 600],
      ['alias', 2, 600],
      ['n', 3, 2000],
      ['small', 3, 2000],
    ] as const) {
      expect((await chat(model, { n })).status, model).toBe(200);
      expect(await refused(() => chat(model, { n: n + 1 }))).toMatchObject(tooLarge(n, n + 1));
      // Nothing counts the prompt: its estimate is far below the rest, and `max_tokens` alone reaches the cap.
      expect((await chat(model, { max_tokens: tokens - 100 })).status, model).toBe(200);
      expect(await refused(() => chat(model, { max_tokens: tokens }))).toMatchObject(
        tooLong(tokens),
      );
    }
    const lists = (model: string, count: number) =>
      send('/v1/completions', { model, prompt: Array(count).fill('a'), max_tokens: 4 });
    expect((await lists('m', 2)).status).toBe(200);
    expect(await refused(() => lists('m', 3))).toMatchObject({
      ...{ code: 'array_above_max_length', param: 'prompt' },
      message: expect.stringMatching(/its 3 prompts ask for 3 completions .* at most 2\.$/),
    });
    expect((await lists('n', 3)).status).toBe(200);
    const prompt = Array(9).fill('a');
    const body = { model: 'm', prompt, max_tokens: 700, n: 3 };
    expect((await send('/v1/completions', body, {}, 'other')).status).toBe(200);
  });

  test('of a split and of a cascade it is the model that the request comes to', async () => {
    const served: (string | null)[] = [];
    for (let i = 0; i < 8; i++) {
      const answer = await chat('both', { n: 3 });
      served.push(answer.status === 400 ? 'refused' : answer.headers.get('x-sluice-model'));
    }
    expect(new Set(served)).toEqual(new Set(['refused', 'n']));
    const large = { 'x-sluice-cascade': 'large' };
    expect((await chat('small', { n: 3 })).status).toBe(200);
    expect(await refused(() => chat('small', { n: 3 }, large))).toMatchObject(tooLarge(2, 3));
    expect(await refused(() => chat('small', { max_tokens: 600 }, large))).toMatchObject(
      tooLong(600),
    );
  });

  test('a request that goes on is held against the caps of the model it came for', async () => {
    // The tenant may ask `m` for 600 at most, and `first` for what it may ask of any.
    const gone = await chat('first', { max_tokens: 1000 }, {}, failing);
    expect([gone.status, gone.headers.get('x-sluice-model')]).toEqual([200, 'm']);
    expect(await refused(() => chat('first', { n: 2 }, {}, failing))).toMatchObject(tooLarge(1, 2));
    // `short` may go on to `long`, which has room for more than the tenant may ask of `short`.
    expect((await chat('short', { max_tokens: 900 })).status).toBe(200);
    expect(await refused(() => chat('short', { max_tokens: 1000 }))).toMatchObject(tooLong(1000));
    expect((await chat('long', { max_tokens: 1000 })).status).toBe(200);
  });

  test('what goes on with a stored response is of the model that keeps it', async () => {
    const create = (more: object) => send('/v1/responses', { input: 'x', ...more });
    const made = await create({ model: 'm' });
    expect(made.status).toBe(200);
    const { id } = JSON.parse(made.text) as { id: string };
    const next = { model: 'small', previous_response_id: id };
    expect((await create(next)).status).toBe(200);
    expect(await refused(() => create({ ...next, n: 3 }))).toMatchObject(tooLarge(2, 3));
    expect((await create({ model: 'small', n: 3 })).status).toBe(200);
  });

  test('caps take no part in what is counted, and a reload changes them at once', async () => {
    const headers = { authorization: `Bearer ${token}` };
    const page = await (await fetch(`${gateway.adminUrl}/admin/tenants`, { headers })).json();
    expect(page).toMatchObject({
      tenants: [{ name: 'acme', limits: null, model_limits: { m: null } }, { name: 'other' }],
    });
    gateway.writeConfig(file({ m: { max_context: 700 }, n: { max_n: 1 } }));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    expect((await chat('m', { n: 3 })).status).toBe(200);
    expect(await refused(() => chat('m', { max_tokens: 700 }))).toMatchObject(tooLong(700));
    expect((await chat('m', { max_tokens: 600 })).status).toBe(200);
    expect(await refused(() => chat('n', { n: 2 }))).toMatchObject(tooLarge(1, 2));
  });
});
