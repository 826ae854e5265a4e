/** Names that several models share, and the names that replicas know, through whole gateways. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  type Answer,
  chatBody,
  chatSeries,
  openStream,
  post,
  withNamedReplicas,
  withReplicas,
} from '../support/scenario.ts';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

type Models = ConfigInput['models'];

/** Models a, b and c over a replica each, named as they are; `of` adds to them. */
const modelsOver = (replicas: readonly Replica[], of: Partial<Models[number]> = {}): Models =>
  replicas.map(({ url }, i) => {
    const name = 'abc'[i] as string;
    return { name, replicas: [{ url, name: `at-${name}` }], ...of };
  });

const ask = (
  gateway: GatewayProcess,
  name: string,
  headers: Readonly<Record<string, string>> = {},
  more: object = {},
): Promise<Answer> =>
  post(gateway.url, chatBody('x', { model: name, max_tokens: 1, ...more }), headers);

/** Who served, as the answer, its head and the replica's name say. */
function serverOf(answer: Answer): string {
  expect(answer.status).toBe(200);
  const name = answer.headers.get('x-sluice-model') ?? '';
  expect(answer.headers.get('x-sluice-replica')).toBe(`at-${name}`);
  // The replica was asked for the model that it knows.
  expect(JSON.parse(answer.text)).toMatchObject({ model: name });
  return name;
}

describe.each(testEngines)('on %s', (engine) => {
  const withSplit = (
    models: (replicas: readonly Replica[]) => Models,
    splits: ConfigInput['splits'],
    use: (gateway: GatewayProcess, replicas: readonly Replica[]) => Promise<void>,
    more: Partial<ConfigInput> = {},
  ): Promise<void> =>
    withNamedReplicas(['one', 'two', 'three'], (replicas) =>
      withGateway(
        { config: { listen: { engine }, ...more, models: models(replicas), splits } },
        (gateway) => use(gateway, replicas),
      ),
    );

  test('requests are shared by weight, sessions stay, and answers tell who served', async () => {
    const splits = [
      {
        name: 'chat',
        aliases: ['talk'],
        models: [
          { model: 'a', weight: 3 },
          { model: 'b', weight: 1 },
        ],
      },
    ];
    await withSplit(modelsOver, splits, async (gateway) => {
      const served = new Map<string, number>();
      for (const i of range(80)) {
        const name = serverOf(await ask(gateway, i % 2 === 0 ? 'chat' : 'talk'));
        served.set(name, (served.get(name) ?? 0) + 1);
      }
      expect([...served.keys()].sort()).toEqual(['a', 'b']);
      expect(Math.abs((served.get('b') ?? 0) - 20)).toBeLessThanOrEqual(2);
      const ofSessions = new Set<string>();
      for (const i of range(24)) {
        const inHead = serverOf(await ask(gateway, 'chat', { 'x-session-id': `s${i}` }));
        const inBody = serverOf(await ask(gateway, 'talk', {}, { session_id: `s${i}` }));
        expect(inBody).toBe(inHead);
        ofSessions.add(inHead);
      }
      expect(ofSessions).toEqual(new Set(['a', 'b']));
      // Who is asked for by name serves, and says so.
      expect(serverOf(await ask(gateway, 'c'))).toBe('c');
      const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as {
        data: { id: string }[];
      };
      expect(list.data.map(({ id }) => id)).toEqual(['a', 'b', 'c', 'chat', 'talk']);
      expect((await fetch(`${gateway.url}/v1/models/chat`)).status).toBe(200);
    });
  });

  test('keys are for the name that is asked for, not for those behind it', async () => {
    const [first, second] = [newKey(), newKey()];
    const tenants = [
      { name: 'x', models: ['chat'], keys: [{ id: 'k', sha256: sha256Of(first) }] },
      { name: 'y', models: ['a'], keys: [{ id: 'k', sha256: sha256Of(second) }] },
    ];
    const splits = [{ name: 'chat', models: [{ model: 'a' }] }];
    const folder = mkdtempSync(join(tmpdir(), 'sluice-split-'));
    const file = join(folder, 'usage.ndjson');
    try {
      await withSplit(
        modelsOver,
        splits,
        async (gateway) => {
          const as = (key: string) => ({ authorization: `Bearer ${key}` });
          expect(serverOf(await ask(gateway, 'chat', as(first)))).toBe('a');
          expect(serverOf(await ask(gateway, 'a', as(second)))).toBe('a');
          for (const [name, key] of [
            ['a', first],
            ['chat', second],
          ] as const) {
            const refused = await ask(gateway, name, as(key));
            expect(refused.status).toBe(403);
            expect(refused.text).toContain('model_not_allowed');
          }
          const list = await fetch(`${gateway.url}/v1/models`, { headers: as(first) });
          expect(((await list.json()) as { data: unknown[] }).data).toMatchObject([{ id: 'chat' }]);
          await gateway.stop();
          const events = readFileSync(file, 'utf8').trim().split('\n');
          expect(events.map((line) => JSON.parse(line).model)).toEqual(['a', 'a']);
        },
        { tenants, usage: { file } },
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a batch is of one adapter, whatever name its requests came with', async () => {
    const adapter = 'lora';
    const models = ([first]: readonly Replica[]): Models => {
      const batching = { window: '1s', max_items: 4 };
      return [
        { name: 'a', replicas: [{ url: first!.url, name: 'r', adapters: [adapter], batching }] },
      ];
    };
    const splits = [{ name: 'chat', models: [{ model: 'a' }, { model: adapter }] }];
    await withSplit(models, splits, async (gateway) => {
      const asked = range(8).map((i) =>
        post(
          gateway.url,
          { model: 'chat', prompt: `prompt ${i}`, max_tokens: 2 },
          {},
          '/v1/completions',
        ),
      );
      const answers = await Promise.all(asked);
      const served = answers.map((answer) => (JSON.parse(answer.text) as { model: string }).model);
      expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
      expect(served).toEqual(answers.map(({ headers }) => headers.get('x-sluice-model')));
      expect([...new Set(served)].sort()).toEqual(['a', adapter]);
      const batches = answers.filter(({ headers }) => headers.has('x-sluice-batch'));
      expect(batches.length, 'some went together').toBeGreaterThan(0);
    });
  });

  test('only the name changes in a body, wherever it stands and however it is written', async () => {
    const splits = [{ name: 'chat', models: [{ model: 'b' }] }];
    const models = (replicas: readonly Replica[]): Models => {
      const [a, b] = modelsOver(replicas.slice(0, 2));
      const long = `"quoted" \\ ${'n'.repeat(200)}`.replaceAll(' ', '-');
      return [
        a!,
        { ...b!, name: 'b' },
        { name: 'p', replicas: [{ url: replicas[2]!.url, served_model_name: long }] },
      ];
    };
    await withSplit(models, splits, async (gateway, replicas) => {
      // The route answers with the bytes it got.
      const echo = (body: string): Promise<Answer> =>
        post(gateway.url, body, {}, '/v1/audio/speech');
      const long = `"quoted"-\\-${'n'.repeat(200)}`;
      for (const [sent, got] of [
        ['{"model":"chat","input":"x"}', '{"model":"b","input":"x"}'],
        [
          '{ "input" : "\\u0078 chat",\n "model"\t:\r "ch\\u0061t" , "voice":"v" }',
          '{ "input" : "\\u0078 chat",\n "model"\t:\r "b" , "voice":"v" }',
        ],
        ['{"model":"b","input":"x"}', '{"model":"b","input":"x"}'],
        ['{"input":"x","model":"p"}', `{"input":"x","model":${JSON.stringify(long)}}`],
        // Aliases and models without a name of their own at the replica are not touched.
        ['{"input":"x","mode\\u006c":"\\u0061"}', '{"input":"x","mode\\u006c":"\\u0061"}'],
      ] as const) {
        const answer = await echo(sent);
        expect(answer.status).toBe(200);
        expect(answer.text).toBe(got);
      }
      const large = `{"model":"chat","input":"${'y'.repeat(3_000_000)}"}`;
      expect((await echo(large)).text).toBe(large.replace('chat', 'b'));
      const form = (name: string): string =>
        `--q\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nchat\r\n--q\r\ncontent-disposition: form-data; name="model"\r\n\r\n${name}\r\n--q--\r\n`;
      const heard = await post(
        gateway.url,
        form('chat'),
        { 'content-type': 'multipart/form-data; boundary=q' },
        '/v1/audio/transcriptions',
      );
      const sha256 = createHash('sha256').update(form('b')).digest('hex');
      expect(JSON.parse(heard.text)).toMatchObject({ bytes: form('b').length, sha256 });
      expect(replicas[0]!.ledger().length).toBeGreaterThan(0);
    });
  });

  test('a stream goes on at a replica that has another name for the model', async () => {
    const models = ([first, second]: readonly Replica[]): Models => [
      {
        name: 'a',
        policy: 'weighted_least_connections',
        continuation: 'text',
        replicas: [
          { url: first!.url, name: 'one', served_model_name: 'name-of-the-first', weight: 1000 },
          { url: second!.url, name: 'two', served_model_name: 'n2', weight: 0.001 },
        ],
      },
    ];
    const splits = [{ name: 'chat', models: [{ model: 'a' }] }];
    await withSplit(
      models,
      splits,
      async (gateway, [, second]) => {
        const prompt = 'go on [[fault@one:fin-after=5]]';
        const body = chatBody(prompt, { model: 'chat', max_tokens: 12 });
        const { text } = await (await openStream(gateway.url, body)).ended;
        expect(text).toContain('[DONE]');
        expect(second!.stats().continuations).toBe(1);
        const chunks = text
          .split('\n\n')
          .filter((event) => event.startsWith('data: {'))
          .map((event) => JSON.parse(event.slice(6)));
        const content = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
        expect(content).toBe(tokensText(chatSeries(prompt), 0, 12));
        expect(new Set(chunks.map((chunk) => chunk.model))).toEqual(new Set(['name-of-the-first']));
      },
      { retry: { budget: 1 } },
    );
  });

  test('requests of a batch go under the name that its replica knows', async () => {
    const models = ([first]: readonly Replica[]): Models => [
      {
        name: 'a',
        replicas: [
          {
            ...{ url: first!.url, name: 'one', served_model_name: 'longer-than-before' },
            batching: { window: '10s', max_items: 3 },
          },
        ],
      },
    ];
    await withSplit(models, [], async (gateway, [replica]) => {
      // The name before the prompt, and behind it.
      const before = (prompt: string) => ({ model: 'a', prompt, max_tokens: 2 });
      const behind = (prompt: string) => ({ prompt, max_tokens: 2, model: 'a' });
      for (const shape of [before, behind]) {
        const prompts = range(3).map((i) => `[[len=9]] prompt ${i} of a batch`);
        const answers = await Promise.all(
          prompts.map((prompt) => post(gateway.url, shape(prompt), {}, '/v1/completions')),
        );
        for (const [i, { headers, text }] of answers.entries()) {
          expect(headers.get('x-sluice-batch')).toBe('3');
          const { model, choices } = JSON.parse(text);
          expect(model).toBe('longer-than-before');
          expect(choices[0].text).toBe(tokensText(tokenSeries(prompts[i]!), 0, 2));
        }
      }
      expect(replica!.ledger().filter(({ path }) => path === '/v1/completions')).toHaveLength(2);
    });
  });
});

test('a gateway of plain models tells no model in its answers', async () => {
  await withReplicas(1, {}, async (replicas) => {
    await withGateway({ config: { models: modelsOver(replicas) } }, async (gateway) => {
      const answer = await ask(gateway, 'a');
      expect(answer.status).toBe(200);
      expect(answer.headers.has('x-sluice-model')).toBe(false);
    });
  });
});
