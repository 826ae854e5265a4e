/** Requests that another model answers when their own cannot, through whole gateways. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { TOO_LONG } from '../../src/replica/errors.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { tokensText } from '../../src/replica/tokens.ts';
import { fallbackCauses } from '../support/fallback-causes.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { replicaProcess } from '../support/replica.ts';
import {
  type Answer,
  chatBody,
  chatSeries,
  openStream,
  post,
  quickHealth,
  untilReplica,
  withNamedReplicas,
  withReplicas,
} from '../support/scenario.ts';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

type Model = ConfigInput['models'][number];

const names = ['s1', 's2', 'l1', 'h1'];

/** small with two replicas, large and huge with one each; requests for small go on. */
const models = (urls: readonly string[], ofSmall: Partial<Model> = {}): Model[] => [
  {
    name: 'small',
    fallbacks: ['large', 'huge'],
    context_window_fallbacks: ['huge'],
    replicas: [
      { url: urls[0]!, name: 's1' },
      { url: urls[1]!, name: 's2' },
    ],
    ...ofSmall,
  },
  {
    name: 'large',
    replicas: [{ url: urls[2]!, name: 'l1', served_model_name: 'vendor/large', max_in_flight: 8 }],
  },
  { name: 'huge', replicas: [{ url: urls[3]!, name: 'h1' }] },
];

const failing = (status: number, replicas = 's1 s2'): string =>
  replicas
    .split(' ')
    .map((name) => `[[fault@${name}:status=${status}]]`)
    .join(' ');

const send = (gateway: GatewayProcess, prompt: string, more: object = {}): Promise<Answer> =>
  post(gateway.url, chatBody(prompt, { model: 'small', max_tokens: 4, ...more }));

/** The whole answer to the prompt, of a model that was asked by the name it knows. */
function expectAnswer(answer: Answer, prompt: string, name: string, attempts: number): void {
  expect(answer.status).toBe(200);
  expect(answer.headers.get('x-sluice-model')).toBe(name);
  expect(answer.headers.get('x-sluice-attempts')).toBe(String(attempts));
  const { model, choices } = JSON.parse(answer.text);
  expect(model).toBe(name === 'large' ? 'vendor/large' : name);
  expect(choices[0].message.content).toBe(tokensText(chatSeries(prompt), 0, 4));
}

describe.each(testEngines)('on %s', (engine) => {
  const withModels = (
    use: (gateway: GatewayProcess, replicas: readonly Replica[]) => Promise<void>,
    { ofSmall = {}, ...more }: Partial<ConfigInput> & { ofSmall?: Partial<Model> } = {},
  ): Promise<void> =>
    withNamedReplicas(names, (replicas) => {
      const urls = replicas.map(({ url }) => url);
      const retry = { budget: 1, budget_min: 100 };
      const config = { listen: { engine }, retry, ...more, models: models(urls, ofSmall) };
      return withGateway({ config }, (gateway) => use(gateway, replicas));
    });

  test('what fails on every replica of a model is answered by the next one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-fallback-'));
    const file = join(folder, 'usage.ndjson');
    try {
      await withModels(
        async (gateway, replicas) => {
          const toLarge = `x ${failing(500)}`;
          expectAnswer(await send(gateway, toLarge), toLarge, 'large', 3);
          const toHuge = `x ${failing(503, 's1 s2 l1')}`;
          expectAnswer(await send(gateway, toHuge), toHuge, 'huge', 4);
          const toNobody = await send(gateway, `x ${failing(500, 's1 s2 l1 h1')}`);
          expect(toNobody.status).toBe(502);
          expect(toNobody.headers.has('x-sluice-model')).toBe(false);
          // Not for errors that the client can mend, nor for models without fallbacks.
          expect((await send(gateway, `x ${failing(422)}`)).status).toBe(422);
          const ofLarge = await send(gateway, `x ${failing(500, 'l1')}`, { model: 'large' });
          expect(ofLarge.status).toBe(502);
          expect(await fallbackCauses(gateway)).toEqual({ failed: 3, busy: 2 });
          expect(replicas[3]!.ledger()).toHaveLength(2);
          await gateway.stop();
          const events = readFileSync(file, 'utf8').trim().split('\n');
          const served = events.map((line) => JSON.parse(line)).map((e) => [e.model, e.attempts]);
          expect(served.slice(0, 2)).toEqual([
            ['large', 3],
            ['huge', 4],
          ]);
        },
        { usage: { file }, breaker: { mode: 'off' } },
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a stream begins at the model that answers, and ends where it began', async () => {
    await withModels(async (gateway) => {
      const prompt = `s ${failing(500)}`;
      const body = chatBody(prompt, { model: 'small', max_tokens: 9 });
      const stream = await openStream(gateway.url, body);
      expect(stream.headers.get('x-sluice-model')).toBe('large');
      const { text } = await stream.ended;
      const contents = [...text.matchAll(/"content":("(?:[^"\\]|\\.)*")/g)];
      const said = contents.map(([, json]) => JSON.parse(json as string)).join('');
      expect(said).toBe(tokensText(chatSeries(prompt), 0, 9));
      expect(text).toContain('[DONE]');
      // Its client has a part: no other model goes on with it.
      const cut = chatBody(`s ${failing(500)} [[fault@l1:fin-after=3]]`, { model: 'small' });
      const broken = await (await openStream(gateway.url, cut)).ended;
      expect(broken.text).toContain('"error"');
      expect(broken.text).not.toContain('[DONE]');
    });
  });

  test.each(Object.keys(TOO_LONG))('a prompt that is too long goes on: %s', async (words) => {
    await withModels(async (gateway, replicas) => {
      const long = (names: string): string =>
        names
          .split(' ')
          .map((name) => `[[fault@${name}:too-long=${words}]]`)
          .join(' ');
      const prompt = `p ${long('s1 s2')}`;
      expectAnswer(await send(gateway, prompt), prompt, 'huge', 2);
      expect(replicas[0]!.ledger().length + replicas[1]!.ledger().length).toBe(1);
      const body = chatBody(prompt, { model: 'small', max_tokens: 2 });
      const stream = await openStream(gateway.url, body);
      expect(stream.headers.get('x-sluice-model')).toBe('huge');
      expect((await stream.ended).text).toContain('[DONE]');
      // The last one's own words reach the client, as those of a model without such a list do.
      const [status, , message] = TOO_LONG[words]!;
      for (const [names, asked] of [
        ['s1 s2 h1', 'small'],
        ['l1', 'large'],
      ] as const) {
        const answer = await send(gateway, `p ${long(names)}`, { model: asked });
        expect(answer.status).toBe(status);
        expect(answer.text).toContain(JSON.stringify(message).slice(1, -1));
      }
      expect(await fallbackCauses(gateway)).toEqual({ context: 3 });
    });
  });

  test('a full queue, and replicas that are busy, send requests on at once', async () => {
    const replicasOf = (urls: readonly Replica[]) => [
      { url: urls[0]!.url, name: 's1', max_in_flight: 1 },
    ];
    await withNamedReplicas(names, async (replicas) => {
      const ofSmall = { replicas: replicasOf(replicas) };
      const config = {
        ...{ listen: { engine }, queue: { max: 1 } },
        models: models(
          replicas.map(({ url }) => url),
          ofSmall,
        ),
      };
      await withGateway({ config }, async (gateway) => {
        const held = send(gateway, 'first [[hold]]');
        await replicas[0]!.gate.arrivals(1);
        const waiting = send(gateway, 'second');
        await expect.poll(async () => (await gateway.cluster()).queue_depth).toBe(1);
        expectAnswer(await send(gateway, 'third'), 'third', 'large', 1);
        replicas[0]!.gate.release();
        for (const answer of await Promise.all([held, waiting])) {
          expect(answer.headers.get('x-sluice-model')).toBe('small');
        }
        const busy = 'b [[fault@s1:status=429,retry-after=30]]';
        expectAnswer(await send(gateway, busy), busy, 'large', 2);
        expectAnswer(await send(gateway, 'again'), 'again', 'large', 1);
        expect(await fallbackCauses(gateway)).toEqual({ queue_full: 1, busy: 2 });
      });
    });
  });

  test('a model whose replicas are down is answered for by the next one', async () => {
    await withReplicas(1, {}, async ([steady]) => {
      const mortal = await replicaProcess({});
      try {
        const config = {
          ...{ listen: { engine }, health: quickHealth },
          models: [
            {
              name: 'small',
              fallbacks: ['large'],
              replicas: [{ url: mortal.url, name: 's1' }],
            },
            { name: 'large', replicas: [{ url: steady!.url, name: 'l1' }] },
          ],
        };
        await withGateway({ config }, async (gateway) => {
          expect((await send(gateway, 'x')).headers.get('x-sluice-model')).toBe('small');
          await mortal.kill();
          await untilReplica(gateway, 's1', ({ healthy }) => !healthy);
          const answers = await Promise.all(range(20).map((i) => send(gateway, `q${i}`)));
          for (const { status, headers } of answers) {
            expect(status).toBe(200);
            expect(headers.get('x-sluice-model')).toBe('large');
            expect(headers.get('x-sluice-attempts')).toBe('1');
          }
          // That large has no room for it says nothing of small.
          const [words = ''] = Object.keys(TOO_LONG);
          const { status, headers, text } = await send(gateway, `p [[fault:too-long=${words}]]`);
          expect([status, JSON.parse(text).error.code]).toEqual([503, 'no_replica']);
          expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
          expect(await fallbackCauses(gateway)).toEqual({ no_replica: 21 });
        });
      } finally {
        await mortal.close();
      }
    });
  });
});
