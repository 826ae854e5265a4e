/**
 * What a request may ask for, through the whole gateway with a real tokenizer: refused without a call to a
 * replica, exact to the token, and by an estimate where nothing can be counted. Both engines.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import {
  type GatewayProcess,
  GatewayStartError,
  gatewayProcess,
  testEngines,
} from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { type Answer, chatPath, post } from '../support/scenario.ts';
import {
  chatMl,
  longText,
  referenceOf,
  removeTokenizers,
  tokenizerFolder,
} from '../support/tokenizers.ts';

const token = 'limits';
const keys = { free: newKey(), small: newKey(), ofModel: newKey() };
const as = (name: keyof typeof keys) => ({ authorization: `Bearer ${keys[name]}` });
const maxContext = 4096;
const reference = referenceOf('yi');
const text = longText(reference);

interface ErrorBody {
  readonly error: { readonly code: string; readonly param: string; readonly message: string };
}
const errorOf = ({ status, text: body }: Answer) => ({
  ...{ status },
  ...(JSON.parse(body) as ErrorBody).error,
});

/** Loops for as long as nobody ends it. */
const stuck = `{% for i in range(100000000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}${chatMl}`;

afterAll(removeTokenizers);

describe.each(testEngines)('engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;
  const folder = tokenizerFolder('yi');

  const file = (): ConfigInput => {
    const replicas = [{ url: replica.url }];
    const tenant = (name: keyof typeof keys, limits: object, model_limits = {}) => ({
      ...{ name, limits, model_limits },
      keys: [{ id: 'one', sha256: sha256Of(keys[name]) }],
    });
    return {
      listen: { engine },
      admin: { token },
      // Long enough for a machine that is busy with other tests.
      tokenizers: { timeout: '20s' },
      requests: { max_n: 4, max_tokens_cap: 100_000, max_stop: 2, allow: ['cache_salt'] },
      tenants: [
        tenant('free', {}),
        tenant('small', { max_context: 600, max_n: 2 }),
        tenant('ofModel', {}, { m: { max_context: 600 } }),
      ],
      models: [
        { name: 'm', replicas, max_context: maxContext, tokenizer: { file: folder } },
        { name: 'guess', replicas, max_context: maxContext },
        { name: 'open', replicas },
      ],
    };
  };

  beforeAll(async () => {
    replica = await replicaInProcess({ profile: 'instant' });
    gateway = await gatewayProcess({ config: file() });
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
  });

  const chat = (model: string, content: unknown, more: object = {}) => ({
    ...{ model, messages: [{ role: 'user', content }], ...more },
  });
  const ask = (body: object, who: keyof typeof keys = 'free', path = chatPath) =>
    post(gateway.url, body, as(who), path);
  /** Exact tokens of a chat, as the gateway answers for its model. */
  const tokensOf = async (content: string): Promise<number> => {
    const answer = await ask(chat('m', content), 'free', '/tokenize');
    return (JSON.parse(answer.text) as { count: number }).count;
  };
  /** The replica hears of nothing while `use` runs. */
  async function unheard<T>(use: () => Promise<T>): Promise<T> {
    const before = replica.stats().started;
    const result = await use();
    expect(replica.stats().started).toBe(before);
    return result;
  }

  test('of several prompts an estimate refuses none, and a tenant cannot have its own limit cut', async () => {
    const prompt = Array.from({ length: 100 }, () => text.slice(0, 400));
    expect((await ask({ model: 'guess', prompt }, 'free', '/v1/completions')).status).toBe(200);
    const long = chat('m', text.slice(0, 20_000), { truncate_prompt_tokens: 100 });
    expect((await ask(long)).status).toBe(200);
    expect(errorOf(await unheard(() => ask(long, 'small')))).toMatchObject({
      ...{ status: 400, code: 'context_length_exceeded' },
    });
  });

  test('the context is exact to the token, and the refusal says what OpenAI says', async () => {
    const content = text.slice(0, 2500);
    const tokens = await tokensOf(content);
    const room = maxContext - tokens;
    expect(room).toBeGreaterThan(0);
    const fits = await ask(chat('m', content, { max_tokens: room }));
    expect(fits.status).toBe(200);
    const refused = await unheard(() => ask(chat('m', content, { max_tokens: room + 1 })));
    expect(errorOf(refused)).toMatchObject({
      ...{ status: 400, code: 'context_length_exceeded', param: 'messages' },
      message:
        `This model's maximum context length is ${maxContext} tokens. However, you requested ` +
        `${maxContext + 1} tokens (${tokens} in the messages, ${room + 1} in the completion). ` +
        'Please reduce the length of the messages or completion.',
    });
  });

  test('without max_tokens the prompt alone must leave room for one', async () => {
    const prompt = reference.cases[1]?.text.repeat(3 * maxContext) ?? '';
    const { status, message } = errorOf(
      await unheard(() => ask(chat('m', `${prompt} 你 `.repeat(9)))),
    );
    expect(status).toBe(400);
    expect(message).toMatch(/your messages resulted in (at least )?\d+ tokens\. Please reduce/);
  });

  test('a completion, a stream, and the other APIs', async () => {
    const bodies: [path: string, body: object][] = [
      ['/v1/completions', { model: 'm', prompt: text }],
      [chatPath, chat('m', text, { stream: true })],
      ['/v1/responses', { model: 'm', input: text }],
      ['/v1/messages', { ...chat('m', text), max_tokens: 5 }],
    ];
    for (const [path, body] of bodies) {
      const answer = await unheard(() => ask(body, 'free', path));
      expect(answer.status, path).toBe(400);
      expect(answer.text, path).toContain("This model's maximum context length is 4096 tokens.");
    }
  });

  test('what is no text is not counted', async () => {
    const url = `data:image/png;base64,${'iVBORw0KGgo'.repeat(2000)}`;
    const content = [
      { type: 'text', text: 'What is it?' },
      { type: 'image_url', image_url: { url } },
    ];
    for (const model of ['m', 'guess']) {
      expect((await ask(chat(model, content))).status, model).toBe(200);
    }
  });

  test('the smaller limit of a tenant counts for its requests', async () => {
    const content = text.slice(0, 2000);
    expect((await ask(chat('m', content))).status).toBe(200);
    const refused = errorOf(await unheard(() => ask(chat('m', content), 'small')));
    expect(refused.message).toContain('maximum context length is 600 tokens');
    const open = await unheard(() => ask(chat('open', text), 'small'));
    expect(errorOf(open).code).toBe('context_length_exceeded');
    expect((await ask(chat('open', text))).status).toBe(200);
  });

  test('what a tenant has for a model counts as its own does, for that model alone', async () => {
    const content = text.slice(0, 2000);
    const tokens = await tokensOf(content);
    const short = text.slice(0, 200);
    const room = 600 - (await tokensOf(short));
    expect((await ask(chat('m', short, { max_tokens: room }), 'ofModel')).status).toBe(200);
    for (const body of [
      chat('m', short, { max_tokens: room + 1 }),
      chat('m', content, { truncate_prompt_tokens: 100 }),
    ]) {
      const refused = errorOf(await unheard(() => ask(body, 'ofModel')));
      expect(refused.message).toContain('maximum context length is 600 tokens');
    }
    const other = chat('guess', content, { max_tokens: maxContext - 2 * tokens });
    expect((await ask(other, 'ofModel')).status).toBe(200);
    const ids = await unheard(() => ask({ model: 'm', prompt: 'Hi' }, 'ofModel', '/tokenize'));
    expect(JSON.parse(ids.text)).toMatchObject({ max_model_len: 600 });
  });

  test('5 MB of prompt are refused after a part of them', async () => {
    const content = text.repeat(Math.ceil(5e6 / text.length));
    const { status, message } = errorOf(await unheard(() => ask(chat('m', content))));
    expect(status).toBe(400);
    const [, tokens] = /resulted in at least (\d+) tokens/.exec(message) ?? [];
    expect(Number(tokens)).toBeLessThan(2 * maxContext);
  });

  test('without a tokenizer only what is far too long is refused', async () => {
    const far = await unheard(() => ask(chat('guess', 'word '.repeat(4 * maxContext))));
    expect(errorOf(far).message).toMatch(/resulted in about \d+ tokens/);
    expect((await ask(chat('guess', 'word '.repeat(maxContext)))).status).toBe(200);
    const asked = await unheard(() => ask(chat('guess', 'a', { max_tokens: maxContext })));
    expect(errorOf(asked).code).toBe('context_length_exceeded');
  });

  test('/tokenize has the ids of the reference, in an answer of any length', async () => {
    for (const { text: prompt, ids } of reference.cases.slice(0, 12)) {
      const answer = await unheard(() => ask({ model: 'm', prompt }, 'free', '/tokenize'));
      expect(JSON.parse(answer.text)).toEqual({
        ...{ count: ids.length, max_model_len: maxContext, tokens: ids, token_strs: null },
      });
    }
    const long = await unheard(() => ask({ model: 'm', prompt: text }, 'free', '/v1/tokenize'));
    const { count, tokens } = JSON.parse(long.text) as { count: number; tokens: number[] };
    expect(count).toBe(reference.long.count);
    expect(tokens).toHaveLength(count);
    expect(long.headers.get('content-type')).toBe('application/json');
  });

  test('count_tokens counts what the chat template makes of a message', async () => {
    const path = '/v1/messages/count_tokens';
    const answer = await unheard(() => ask(chat('m', 'Hi'), 'free', path));
    expect(JSON.parse(answer.text)).toEqual({ input_tokens: await tokensOf('Hi') });
  });

  test('what the gateway cannot answer, and models without a tokenizer, are for a replica', async () => {
    const before = replica.stats().started;
    for (const body of [
      { model: 'open', prompt: 'Hi' },
      { model: 'm', prompt: text.repeat(3) },
    ]) {
      expect((await ask(body, 'free', '/tokenize')).status).toBe(200);
    }
    expect(replica.stats().started).toBe(before + 2);
  });

  test('caps and keys of engines', async () => {
    const cases: [more: object, param: string, code: string][] = [
      [{ n: 5 }, 'n', 'integer_above_max_value'],
      [{ max_completion_tokens: 100_001 }, 'max_completion_tokens', 'integer_above_max_value'],
      [{ stop: ['a', 'b', 'c'] }, 'stop', 'array_above_max_length'],
      [{ priority: 9 }, 'priority', 'unsupported_parameter'],
      [{ chat_template_kwargs: { a: 1 } }, 'chat_template_kwargs', 'unsupported_parameter'],
    ];
    for (const [more, param, code] of cases) {
      const refused = await unheard(() => ask(chat('open', 'a', more)));
      expect(errorOf(refused)).toMatchObject({ status: 400, param, code });
    }
    expect((await ask(chat('open', 'a', { n: 4, stop: ['a', 'b'], cache_salt: 's' }))).status).toBe(
      200,
    );
    expect((await ask(chat('open', 'a', { n: 2 }), 'small')).status).toBe(200);
    expect((await ask(chat('open', 'a', { n: 3 }), 'small')).status).toBe(400);
    const completions = (count: number, who: keyof typeof keys) =>
      ask({ model: 'open', prompt: Array(count).fill('a') }, who, '/v1/completions');
    expect((await completions(2, 'small')).status).toBe(200);
    for (const [count, who] of [
      [3, 'small'],
      [20_000, 'small'],
      [2049, 'free'],
    ] as const) {
      const refused = await unheard(() => completions(count, who));
      const code = 'array_above_max_length';
      expect(errorOf(refused)).toMatchObject({ status: 400, param: 'prompt', code });
    }
    const input = Array(2048).fill('a');
    expect((await ask({ model: 'open', input }, 'small', '/v1/embeddings')).status).toBe(200);
    const more = await unheard(() =>
      ask({ model: 'open', input: [...input, 'a'] }, 'free', '/v1/embeddings'),
    );
    expect(errorOf(more)).toMatchObject({ status: 400, param: 'input' });
  });

  test('a broken file at a reload keeps the last good one', async () => {
    const path = join(folder, 'tokenizer.json');
    const { count, tokens } = JSON.parse(
      (await ask({ model: 'm', prompt: 'Hi there' }, 'free', '/tokenize')).text,
    ) as { count: number; tokens: number[] };
    rmSync(path);
    writeFileSync(path, '{"model":');
    const answer = await adminPost(gateway.adminUrl, token, 'reload');
    expect(JSON.stringify(answer)).toContain('the old ones stay');
    const after = await unheard(() => ask({ model: 'm', prompt: 'Hi there' }, 'free', '/tokenize'));
    expect(JSON.parse(after.text)).toMatchObject({ count, tokens });
  });
});

describe('a pool that is stuck', () => {
  test('the estimate decides in time, and the pool comes back', async () => {
    const replica = await replicaInProcess({ profile: 'instant' });
    const replicas = [{ url: replica.url }];
    const loops = `{% if messages[0].content[:4] == 'loop' %}${stuck}{% else %}${chatMl}{% endif %}`;
    const gateway = await gatewayProcess({
      config: {
        tokenizers: { timeout: '200ms', queue: 1 },
        models: [
          {
            name: 'm',
            replicas,
            max_context: 600,
            tokenizer: { file: tokenizerFolder('gpt2', loops) },
          },
        ],
      },
    });
    try {
      const ask = (content: string) =>
        post(gateway.url, { model: 'm', messages: [{ role: 'user', content }] });
      // Near the limit: let in. Far over it: refused. Neither waits for a thread that never ends.
      const near = await ask(`loop ${'word '.repeat(200)}`);
      expect(near.status).toBe(200);
      const far = await ask(`loop ${'word '.repeat(4000)}`);
      expect(errorOf(far).message).toMatch(/resulted in about \d+ tokens/);
      const over = 'word '.repeat(800);
      await expect
        .poll(async () => (await ask(over)).text, { timeout: 25_000 })
        .toContain('messages resulted in at least');
      const { samples } = (await gateway.metrics()).get('sluice_token_counts_total')!;
      expect(samples.get('sluice_token_counts_total{outcome="late"}')).toBeGreaterThan(0);
      expect(samples.get('sluice_token_counts_total{outcome="counted"}')).toBe(1);
    } finally {
      await gateway.finish();
      await replica.close();
    }
  });

  test('a client that leaves while its prompt is counted gives its slot back', async () => {
    const replica = await replicaInProcess({ profile: 'instant' });
    const file = tokenizerFolder('gpt2', stuck);
    const models = [
      { name: 'm', replicas: [{ url: replica.url }], max_context: 600, tokenizer: { file } },
    ];
    const gateway = await gatewayProcess({ config: { tokenizers: { timeout: '30s' }, models } });
    try {
      const leaving = new AbortController();
      const body = { model: 'm', messages: [{ role: 'user', content: 'word '.repeat(200) }] };
      const gone = fetch(gateway.url + chatPath, {
        ...{ method: 'POST', body: JSON.stringify(body), signal: leaving.signal },
        headers: { 'content-type': 'application/json' },
      }).catch((error: Error) => error.name);
      const inUse = async (): Promise<number> => (await gateway.slots()).rows.length;
      await expect.poll(inUse).toBe(1);
      leaving.abort();
      expect(await gone).toBe('AbortError');
      await expect.poll(inUse).toBe(0);
      expect(replica.stats().started).toBe(0);
    } finally {
      await gateway.finish();
      await replica.close();
    }
  });

  test('files that are broken at the start are a line of the config', async () => {
    const folder = tokenizerFolder('gpt2', '{% for %}');
    const models = [
      { name: 'm', replicas: [{ url: 'http://127.0.0.1:9' }], tokenizer: { file: folder } },
    ];
    const start = gatewayProcess({ config: { models } });
    const error = (await start.catch((reason: unknown) => reason)) as GatewayStartError;
    expect(error).toBeInstanceOf(GatewayStartError);
    expect(error.exit.code).toBe(2);
    expect(error.output).toMatch(
      /sluice\.yaml:\d+:\d+ models\.0\.tokenizer: the chat template of /,
    );
  });
});
