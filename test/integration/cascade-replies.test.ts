/**
 * Replies of a small model that are discarded for those of a larger one, through whole gateways: in every
 * API, whole and in streams. What a replica says has its name in its id, so that no part of a discarded
 * reply can go unseen.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { fallbackCauses } from '../support/fallback-causes.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { replicaProcess } from '../support/replica.ts';
import {
  type Answer,
  openStream,
  post,
  quickHealth,
  total,
  untilReplica,
  withNamedReplicas,
  withReplicas,
} from '../support/scenario.ts';

type Model = ConfigInput['models'][number];
const names = ['s1', 's2', 'l1', 'f1'];
type Headers = Readonly<Record<string, string>>;

const paths = {
  chat: '/v1/chat/completions',
  completions: '/v1/completions',
  messages: '/v1/messages',
  responses: '/v1/responses',
} as const;
type Api = keyof typeof paths;
const apis = Object.keys(paths) as Api[];

const onReply = {
  refusal: true,
  header: 'x-low-confidence',
  field: 'low_confidence',
  mean_logprob_below: -1.5,
};

/** What makes small models unwanted, and the cause that is counted. */
const causes = {
  refusal: 'refusal',
  filtered: 'refusal',
  'unsure=header': 'low_confidence',
  'unsure=field': 'low_confidence',
} as const;

function bodyOf(api: Api, text: string, more: object = {}): object {
  const messages = [{ role: 'user', content: text }];
  const limit = api === 'responses' ? { max_output_tokens: 6 } : { max_tokens: 6 };
  const prompt =
    api === 'completions' ? { prompt: text } : api === 'responses' ? { input: text } : { messages };
  return { model: 'small', ...prompt, ...limit, ...more };
}

const ask = (
  gateway: GatewayProcess,
  api: Api,
  text: string,
  more: object = {},
  headers: Headers = {},
): Promise<Answer> => post(gateway.url, bodyOf(api, text, more), headers, paths[api]);

/** A tag for every small replica. */
const small = (fault: string): string => `[[fault@s1:${fault}]] [[fault@s2:${fault}]]`;

function expectOf(answer: Answer, model: 'small' | 'large', attempts: number): void {
  expect(answer.status, answer.text).toBe(200);
  expect(answer.headers.get('x-sluice-model')).toBe(model);
  expect(answer.headers.get('x-sluice-attempts')).toBe(String(attempts));
  expect(answer.headers.get('x-sluice-replica')).toMatch(model === 'small' ? /^s\d$/ : 'l1');
  expectOnly(answer.text, model);
}

/** All that was said was said by the model, to the end. */
function expectOnly(text: string, model: 'small' | 'large'): void {
  const said = [...text.matchAll(/"(?:chatcmpl-|cmpl-|msg_|resp_)(\w+)-\d+"/g)].map(([, by]) => by);
  expect(said.length).toBeGreaterThan(0);
  for (const by of said) expect(by).toMatch(model === 'small' ? /^s\d$/ : 'l1');
}

const isWhole = (text: string): boolean =>
  /\[DONE\]|"type":"message_stop"|"type":"response\.(completed|incomplete)"/.test(text);

describe.each(testEngines)('on %s', (engine) => {
  const withCascade = (
    use: (gateway: GatewayProcess, replicas: readonly Replica[]) => Promise<void>,
    { ofSmall = {}, ofLarge = {}, ...more }: Partial<ConfigInput> & Parts = {},
  ): Promise<void> =>
    withNamedReplicas(names, (replicas) => {
      const [s1, s2, l1, f1] = replicas.map(({ url }, i) => ({ url, name: names[i]! }));
      const models: Model[] = [
        {
          name: 'small',
          aliases: ['auto'],
          cascade: { model: 'large', on_reply: onReply },
          replicas: [s1!, s2!],
          ...ofSmall,
        },
        { name: 'large', replicas: [l1!], ...ofLarge },
        { name: 'third', replicas: [f1!] },
      ];
      const retry = { budget: 1, budget_min: 100 };
      const config = { listen: { engine }, retry, ...more, models };
      return withGateway({ config }, (gateway) => use(gateway, replicas));
    });

  test('a refusal, and an answer of low confidence, is answered by the larger model', async () => {
    await withCascade(async (gateway, replicas) => {
      const counts: Record<string, number> = {};
      for (const [fault, cause] of Object.entries(causes)) {
        for (const api of apis) {
          for (const stream of [false, true]) {
            const what = `${fault} ${api} ${stream}`;
            const answer = await ask(gateway, api, `${what} ${small(fault)}`, { stream });
            expectOf(answer, 'large', 2);
            expect(isWhole(answer.text), what).toBe(stream);
            counts[cause] = (counts[cause] ?? 0) + 1;
          }
        }
      }
      expect(await fallbackCauses(gateway)).toEqual(counts);
      const asked = replicas.map((replica) => replica.ledger().length);
      expect(asked[0]! + asked[1]!).toBe(asked[2]);
      // Nothing of it is a failure of a replica, and none is judged for it.
      const { replicas: rows } = await gateway.cluster();
      expect(rows.map(({ errors }) => errors)).toEqual([0, 0, 0, 0]);
    });
  });

  test('logprobs that are low on the mean, of a whole answer', async () => {
    await withCascade(async (gateway) => {
      for (const api of ['chat', 'completions', 'responses'] as const) {
        const low = await ask(gateway, api, `l ${small('logprob=151')}`);
        expectOf(low, 'large', 2);
        expectOf(await ask(gateway, api, `l ${small('logprob=150')}`), 'small', 1);
      }
      expect(await fallbackCauses(gateway)).toEqual({ low_confidence: 3 });
    });
  });

  test('who asks for the small model gets its reply, and so does who asks for another one', async () => {
    await withCascade(async (gateway) => {
      const wish = { 'x-sluice-cascade': 'small' };
      for (const stream of [false, true]) {
        const refused = `x ${small('refusal')}`;
        const own = await ask(gateway, 'chat', refused, { stream }, wish);
        expectOf(own, 'small', 1);
        expect(own.text).toContain('"refusal":"');
        expectOf(await ask(gateway, 'chat', refused, { stream, model: 'auto' }), 'large', 2);
        // The larger model is not judged by the rules of the small one.
        const ofLarge = await ask(gateway, 'chat', `x ${small('refusal')} [[fault@l1:refusal]]`, {
          stream,
        });
        expectOf(ofLarge, 'large', 2);
        expect(ofLarge.text).toContain('"refusal":"');
      }
    });
  });

  test('what has begun stays, and what is too large to hold is passed on', async () => {
    const ofSmall = {
      cascade: { model: 'large', on_reply: { finish_reasons: ['length', 'max_tokens'] } },
    };
    await withCascade(
      async (gateway) => {
        for (const api of ['chat', 'completions', 'messages'] as const) {
          const limit = { max_tokens: 2 };
          const stream = await ask(gateway, api, 'x [[len=9]]', { ...limit, stream: true });
          expectOf(stream, 'small', 1);
          expect(isWhole(stream.text)).toBe(true);
          expectOf(await ask(gateway, api, 'x [[len=9]]', limit), 'large', 2);
        }
        const large = await ask(gateway, 'chat', 'x [[len=99999]]', { max_tokens: 9000 });
        expect(large.text.length).toBeGreaterThan(64 * 1024);
        expectOf(large, 'small', 1);
      },
      { ofSmall },
    );
  });

  test('the larger model fails: its error, or whoever is in its list, the small one too', async () => {
    const failing = `x ${small('refusal')} [[fault@l1:status=500]]`;
    const more = { breaker: { mode: 'off' } } as const;
    await withCascade(async (gateway) => {
      for (const stream of [false, true]) {
        const answer = await ask(gateway, 'chat', failing, { stream });
        expect(answer.status).toBe(502);
        expect(answer.text).not.toMatch(/-s\d-|refusal/);
      }
      const refused = await ask(gateway, 'chat', `x ${small('refusal')} [[fault@l1:status=422]]`);
      expect(refused.status).toBe(422);
    }, more);
    await withCascade(
      async (gateway, replicas) => {
        for (const stream of [false, true]) {
          const answer = await ask(gateway, 'chat', failing, { stream });
          expectOf(answer, 'small', 3);
          expect(answer.text).toContain('"refusal":"');
        }
        // Down the list of the larger model, not down that of the small one.
        const on = `${failing} [[fault@s1:status=200]]`;
        expectOf(await ask(gateway, 'chat', on), 'small', 3);
        expect(replicas[3]!.ledger()).toHaveLength(0);
        expect(await fallbackCauses(gateway)).toEqual({ refusal: 3, failed: 3 });
      },
      { ...more, ofSmall: { fallbacks: ['third'] }, ofLarge: { fallbacks: ['small', 'third'] } },
    );
  });

  test('a small model that fails goes down its own list, and nobody there is judged', async () => {
    await withCascade(
      async (gateway) => {
        const answer = await ask(gateway, 'chat', `x ${small('status=500')} [[fault@f1:refusal]]`);
        expect(answer.headers.get('x-sluice-model')).toBe('third');
        expect(answer.text).toContain('"refusal":"');
        expect(await fallbackCauses(gateway)).toEqual({ failed: 1 });
      },
      { ofSmall: { fallbacks: ['third'] }, breaker: { mode: 'off' } },
    );
  });

  test('while no replica of the larger model is up the reply of the small one passes', async () => {
    await withReplicas(1, { name: 's1' }, async ([s1]) => {
      const mortal = await replicaProcess({ name: 'l1' });
      try {
        const config = {
          ...{ listen: { engine }, health: quickHealth },
          models: [
            {
              name: 'small',
              cascade: { model: 'large', on_reply: onReply },
              replicas: [{ url: s1!.url, name: 's1' }],
            },
            { name: 'large', replicas: [{ url: mortal.url, name: 'l1' }] },
          ],
        };
        await withGateway({ config }, async (gateway) => {
          expectOf(await ask(gateway, 'chat', `x ${small('refusal')}`), 'large', 2);
          await mortal.kill();
          await untilReplica(gateway, 'l1', ({ healthy }) => !healthy);
          for (const fault of Object.keys(causes)) {
            for (const stream of [false, true]) {
              const answer = await ask(gateway, 'chat', `x ${small(fault)}`, { stream });
              expectOf(answer, 'small', 1);
            }
          }
        });
      } finally {
        await mortal.close();
      }
    });
  });

  test('comments go on meanwhile, and nothing else does', async () => {
    await withCascade(
      async (gateway, replicas) => {
        const body = bodyOf('chat', `k [[hold]] ${small('refusal')}`, { stream: true });
        const stream = await openStream(gateway.url, body);
        const ofSmall = replicas.slice(0, 2);
        await Promise.race(ofSmall.map(({ gate }) => gate.arrivals(1)));
        await stream.until((text) => text.includes(': keep-alive'));
        for (const { gate } of ofSmall) gate.release();
        await replicas[2]!.gate.arrivals(1);
        const before = stream.text();
        await stream.until((text) => text.length > before.length);
        replicas[2]!.gate.release();
        const { text, cut } = await stream.ended;
        expect(cut).toBe(false);
        const rest = text.replaceAll(': keep-alive\n\n', '');
        expect(rest.startsWith('data: {')).toBe(true);
        expectOnly(rest, 'large');
        expect(isWhole(rest)).toBe(true);
      },
      { streams: { keep_alive: '100ms' } },
    );
  });

  test('a hedge beside it speaks for both, whichever is first', async () => {
    await withCascade(async (gateway) => {
      const hedged = { 'x-sluice-hedge': '1' };
      for (const stream of [false, true]) {
        for (const slow of ['s1', 's2']) {
          const prompt = `h ${small('refusal')} [[fault@${slow}:delay=400]]`;
          const answer = await ask(gateway, 'chat', prompt, { stream }, hedged);
          expectOf(answer, 'large', 3); // a hedge is counted too
        }
      }
      expect(await fallbackCauses(gateway)).toEqual({ refusal: 4 });
      expect(total(await gateway.metrics(), 'sluice_hedges_total')).toBe(4);
    });
  });

  test('usage, price and limits are of what the client got', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-cascade-'));
    const file = join(folder, 'usage.ndjson');
    const [key, cheap, dear] = [newKey(), newKey(), newKey()];
    const prices = { ofSmall: { price: { output: 1 } }, ofLarge: { price: { output: 1_000_000 } } };
    const tenants = [
      { name: 'acme', keys: [{ id: 'k', sha256: sha256Of(key) }], models: ['small'] },
      { name: 'cheap', cascade: 'small', keys: [{ id: 'k', sha256: sha256Of(cheap) }] },
      {
        ...{ name: 'dear', cascade: 'large', keys: [{ id: 'k', sha256: sha256Of(dear) }] },
        models: ['small'],
      },
    ] as const;
    try {
      await withCascade(
        async (gateway) => {
          const as = (of: string, more: Headers = {}) => ({
            authorization: `Bearer ${of}`,
            ...more,
          });
          const refused = `x ${small('refusal')}`;
          // Whom the gateway sends on needs no permission for the larger model.
          expectOf(await ask(gateway, 'chat', refused, {}, as(key)), 'large', 2);
          const stream = { stream: true, stream_options: { include_usage: true } };
          expectOf(await ask(gateway, 'chat', refused, stream, as(key)), 'large', 2);
          expectOf(await ask(gateway, 'chat', refused, {}, as(cheap)), 'small', 1);
          expectOf(await ask(gateway, 'chat', 'short', {}, as(dear)), 'large', 1);
          const small1 = { 'x-sluice-cascade': 'small' };
          expectOf(await ask(gateway, 'chat', 'short', {}, as(dear, small1)), 'small', 1);
          const picked = await ask(
            gateway,
            'chat',
            'x',
            {},
            as(dear, { 'x-sluice-cascade': 'large' }),
          );
          expect(picked.status).toBe(403);
          const metrics = await gateway.metrics();
          const of = (name: string, model: string): number =>
            total(metrics, name, { model, type: 'output' });
          expect(of('sluice_tokens_total', 'large')).toBe(3 * 6);
          expect(of('sluice_tokens_total', 'small')).toBe(2 * 6);
          // Of the stream nobody has said what it used but that a token came.
          expect(of('sluice_discarded_tokens_total', 'small')).toBe(6 + 1);
          await gateway.stop();
          const events = readFileSync(file, 'utf8')
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line));
          const facts = events.map((e) => [e.model, e.attempts, e.output_tokens, e.cost]);
          expect(facts).toEqual([
            ['large', 2, 6, 6],
            ['large', 2, 6, 6],
            ['small', 1, 6, 0.000006],
            ['large', 1, 6, 6],
            ['small', 1, 6, 0.000006],
          ]);
        },
        { ...prices, tenants: tenants as unknown as ConfigInput['tenants'], usage: { file } },
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

interface Parts {
  readonly ofSmall?: Partial<Model>;
  readonly ofLarge?: Partial<Model>;
}
