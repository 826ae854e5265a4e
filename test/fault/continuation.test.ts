/**
 * Streams that break in their middle and go on at another replica, through whole gateways, behind their
 * text and behind their token ids: the client gets every token once, one id, one role, one finish and
 * the right usage (F08, F09, F16 and T4 of System B), or an error event and no `[DONE]`. A replica that
 * is given ids which are not those of the prompt and its own first tokens counts a mismatch.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPrng } from '../../src/lib/prng.ts';
import type { ContinuationMode } from '../../src/protocol/continuation.ts';
import { tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
} from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { post, total } from '../support/scenario.ts';
import { type Call, type CallOptions, call, reached } from '../support/traffic.ts';

const tokens = 20;
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

interface Chunk {
  readonly id?: string;
  readonly created?: number;
  readonly model?: string;
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  readonly choices?: readonly {
    readonly delta: { readonly role?: string; readonly content?: string };
    readonly finish_reason: string | null;
  }[];
}

const chunksOf = ({ body }: Call): Chunk[] =>
  body
    .toString()
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice('data: '.length)) as Chunk);

const suite = (engine: TestEngine, mode: ContinuationMode): void => {
  const isOfIds = mode === 'token_ids';
  let replicas: ReplicaProcess[];
  let gateway: GatewayProcess;
  let nonces = 0;

  beforeAll(async () => {
    const profile = 'tokens:ttft=2ms,itl=2ms';
    replicas = [
      await replicaProcess({ model: 'm', profile, name: 'a' }),
      await replicaProcess({ model: 'm', profile, name: 'b' }),
      await replicaProcess({ model: 'm', profile, name: 'c' }),
    ];
    // The first is picked first whenever it may be, then the second.
    const rows = replicas.map(({ url }, i) => ({ url, name: 'abc'[i]!, weight: 1000 / 100 ** i }));
    const policy = 'weighted_least_connections' as const;
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        threads: { forwarders: engine === 'uws' ? 1 : 2 },
        timeouts: { first_token: '2s', inter_token: '400ms' },
        health: { interval: '10m' },
        retry: { budget: 1, budget_min: 1000 },
        breaker: { window: 1000 },
        models: [
          { name: 'm', policy, continuation: mode, replicas: rows },
          {
            name: 'small',
            policy,
            continuation: mode,
            continuation_max: '1KiB',
            replicas: replicas.map(({ url }) => ({ url })),
          },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway.finish();
    for (const replica of replicas) await replica.close();
  });

  const nameOf = (): string => `cont-${mode}-${engine}-${nonces++}`;
  const start = ({ extra, ...options }: Partial<CallOptions>): Call =>
    call(gateway.port, {
      ...{ nonce: nameOf(), stream: true, tokens },
      ...{ extra: { ignore_eos: true, ...extra }, ...options },
    });
  const send = (options: Partial<CallOptions>): Promise<Call> => start(options).ended;
  const mismatches = async (): Promise<number> => {
    const stats = await Promise.all(replicas.map((replica) => replica.stats()));
    return stats.reduce((sum, stat) => sum + stat.continuation_mismatches, 0);
  };

  /** All of the answer, as one replica would have sent it. */
  async function expectWhole(c: Call, usage = false): Promise<void> {
    const { exact, duplicates, gaps, foreign, malformed, sawDone, errors } = c.ledger;
    expect(c.end, c.body.toString()).toBe('done');
    expect({ exact, duplicates, gaps, foreign, sawDone, malformed, errors }).toEqual({
      ...{ exact: true, duplicates: 0, gaps: 0, foreign: 0, sawDone: true },
      ...{ malformed: [], errors: [] },
    });
    expect(c.ledger.tokens).toBe(tokens);
    const chunks = chunksOf(c);
    for (const key of ['id', 'created', 'model'] as const) {
      expect(new Set(chunks.map((chunk) => chunk[key])).size, key).toBe(1);
    }
    const choices = chunks.flatMap((chunk) => chunk.choices ?? []);
    expect(choices.filter(({ delta }) => delta.role !== undefined).length).toBe(1);
    expect(choices.flatMap(({ finish_reason: reason }) => reason ?? [])).toEqual(['length']);
    expect(c.body.toString().match(/\[DONE\]/g)).toHaveLength(1);
    const usages = chunks.flatMap((chunk) => chunk.usage ?? []);
    expect(usages.length).toBe(usage ? 1 : 0);
    if (usage) expect(usages[0]).toMatchObject({ completion_tokens: tokens });
    await expectQuiet(gateway);
    expect(await mismatches()).toBe(0);
  }

  /** A part of the answer and an error event. */
  async function expectBroken(c: Call, tokensLeft: number, code: string): Promise<void> {
    const { exact, sawDone, errors, tokens: came } = c.ledger;
    expect(c.end, c.body.toString()).toBe('stream-error');
    expect({ exact, sawDone, came }).toEqual({ exact: true, sawDone: false, came: tokensLeft });
    expect(errors).toEqual([expect.objectContaining({ code })]);
    await expectQuiet(gateway);
    expect(await mismatches()).toBe(0);
  }

  const attempts = async (nonce: string): Promise<number[]> =>
    (await Promise.all(replicas.map((replica) => replica.ledger(nonce)))).map((l) => l.length);

  const cuts = ['fin', 'reset'].flatMap((how) =>
    ['', ';mid-event', ';framing=close', ';framing=close;mid-event'].map((more) => [how, more]),
  );
  test.each(cuts)('F08: %s%s at token 0, 1, 10 and 19', async (how, more) => {
    for (const k of [0, 1, 10, 19]) {
      const c = await send({ tags: `[[fault@a:${how}-after=${k}${more}]]` });
      await expectWhole(c);
      expect(await attempts(c.nonce)).toEqual([1, 1, 0]);
    }
  });

  test.each(['truncate-chunk=7', 'garbage=7', 'error-event=7', 'fin-byte=2500', 'reset-byte=1700'])(
    'F08: %s',
    async (fault) => {
      await expectWhole(await send({ tags: `[[fault@a:${fault}]]` }));
    },
  );

  test('F09: a stall, in the middle of an event and between two', async () => {
    for (const more of ['', ';mid-event']) {
      await expectWhole(await send({ tags: `[[fault@a:stall-after=5${more}]]` }));
    }
  });

  test('two breaks: a third replica goes on behind the second', async () => {
    for (const [first, second] of [
      [1, 10],
      [10, 11],
      [10, 19],
    ]) {
      const tags = `[[fault@a:fin-after=${first}]] [[fault@b:reset-after=${second}]]`;
      const c = await send({ tags, extra: { stream_options: { include_usage: true } } });
      await expectWhole(c, true);
      expect(await attempts(c.nonce)).toEqual([1, 1, 1]);
    }
  });

  test('F16: usage, id, model and finish are those of one answer; attempts are explained', async () => {
    const options = { include_usage: true };
    const plain = await send({ extra: { stream_options: options } });
    await expectWhole(plain, true);
    const c = await send({ tags: '[[fault@a:fin-after=7]]', extra: { stream_options: options } });
    await expectWhole(c, true);
    const usage = chunksOf(c).at(-1)?.usage;
    const prompt = Buffer.byteLength(
      `<|user|>nonce=${c.nonce} [[fault@a:fin-after=7]]\n<|assistant|>`,
    );
    expect(usage).toMatchObject({
      prompt_tokens: Math.ceil(prompt / 3),
      completion_tokens: tokens,
    });
    const explained = await fetch(`${gateway.adminUrl}/admin/explain/${c.nonce}`);
    const { attempts: explanations } = (await explained.json()) as {
      attempts: { replica: string }[];
    };
    expect(explanations.map(({ replica }) => replica)).toEqual(['b', 'a']);
  });

  test('usage in every chunk, where the client asked for it, goes on counting', async () => {
    const c = await send({
      tags: '[[fault@a:fin-after=7]]',
      extra: { stream_options: { include_usage: true, continuous_usage_stats: true } },
    });
    expect(c.end).toBe('done');
    const counts = chunksOf(c).map(({ usage }) => usage?.completion_tokens);
    expect(counts).toEqual([0, ...Array.from({ length: tokens }, (_, i) => i + 1), tokens]);
    const prompts = chunksOf(c).map(({ usage }) => usage?.prompt_tokens);
    expect(new Set(prompts).size).toBe(1);
    await expectQuiet(gateway);
  });

  test('the last token came and its end did not: the client gets the end', async () => {
    const tags = `[[fault@a:fin-after=${tokens}]]`;
    await expectWhole(
      await send({ tags, extra: { stream_options: { include_usage: true } } }),
      true,
    );
  });

  test('texts with several bytes a character', async () => {
    await expectWhole(await send({ tags: '[[utf8]] [[fault@a:reset-after=7;mid-event]]' }));
  });

  test.each([
    ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
    ['a stop string', { stop: ['x'] }],
    ['a penalty', { presence_penalty: 0.5 }],
    ['a grammar', { guided_regex: '.*' }],
    ['log probabilities', { logprobs: true }],
  ])('a request with %s is not continued', async (_, extra) => {
    const c = await send({ tags: '[[fault@a:fin-after=3]]', extra });
    await expectBroken(c, 3, 'truncated_stream');
    expect(await attempts(c.nonce)).toEqual([1, 0, 0]);
  });

  test('a text over the cap is not continued', async () => {
    const words = isOfIds ? 'x'.repeat(600) : '';
    const c = await send({ model: 'small', tokens: 60, tags: `[[fault:fin-after=58]]${words}` });
    await expectBroken(c, 58, 'truncated_stream');
  });

  test('a replica that refuses to continue: an error event', async () => {
    const tags = '[[fault@a:fin-after=5]] [[fault@b:refuse-continuation]]';
    await expectBroken(await send({ tags }), 5, 'continuation_refused');
  });

  test('a replica that fails before it continues: the next one does', async () => {
    for (const fault of ['status=500', 'reset=headers', 'ok-error', 'status=503']) {
      const c = await send({ tags: `[[fault@a:fin-after=5]] [[fault@b:${fault}]]` });
      // An error object with status 200 is no stream: nobody knows whether it would go on.
      if (fault === 'ok-error') await expectBroken(c, 5, 'continuation_refused');
      else await expectWhole(c);
    }
  });

  test('attempts spent: an error event', async () => {
    const c = await send({
      tags: '[[fault:fin-after=5]] [[fault@b:status=500]] [[fault@c:status=500]]',
    });
    await expectBroken(c, 5, 'all_attempts_failed');
    expect(await attempts(c.nonce)).toEqual([1, 1, 1]);
  });

  test('the time of the client is over before another replica goes on', async () => {
    const tags = '[[fault@a:fin-after=5]] [[fault@b:stall=headers]]';
    const c = await send({ tags, headers: { 'x-sluice-deadline-ms': '600' } });
    await expectBroken(c, 5, 'deadline_exceeded');
    expect(c.endedAt - c.startedAt).toBeGreaterThanOrEqual(600);
  });

  test('a completion goes on behind its prompt', async () => {
    const prompt = `nonce=${nameOf()} [[utf8]] \\" [[fault@a:fin-after=5]] [[fault@b:reset-after=12]]`;
    const body = { model: 'm', prompt, stream: true, max_tokens: tokens, ignore_eos: true };
    const { text } = await post(gateway.url, body, {}, '/v1/completions');
    const events = text.split('\n\n').filter((event) => event.startsWith('data: {'));
    const chunks = events.map(
      (event) =>
        JSON.parse(event.slice('data: '.length)) as { id: string; choices: { text: string }[] },
    );
    const answer = chunks.map(({ choices }) => choices[0]!.text).join('');
    expect(answer).toBe(tokensText(tokenSeries(prompt), 0, tokens));
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(await mismatches()).toBe(0);
  });

  test('what went on and what did not is counted', async () => {
    const count = async (result: string): Promise<number> =>
      total(await gateway.metrics(), 'sluice_stream_continuations_total', { model: 'm', result });
    const before = [await count('ok'), await count('failed')];
    await expectWhole(await send({ tags: '[[fault@a:fin-after=5]]' }));
    await expectBroken(
      await send({ tags: '[[fault@a:fin-after=5]]', extra: { stop: ['x'] } }),
      5,
      'truncated_stream',
    );
    await expectBroken(
      await send({ tags: '[[fault@a:fin-after=5]] [[fault@b:refuse-continuation]]' }),
      5,
      'continuation_refused',
    );
    expect([await count('ok'), await count('failed')]).toEqual([before[0]! + 1, before[1]! + 1]);
  });

  test('the client leaves while another replica goes on', async () => {
    const tags = '[[fault@a:fin-after=5]] [[fault@b:stall=headers]]';
    const c = start({ tags });
    await c.until(({ tokens: came }) => came === 5);
    await eventuallyAsked(1, c.nonce);
    c.leave();
    await c.ended;
    await expectQuiet(gateway);
    expect((await replicas[1]!.ledger(c.nonce))[0]?.end).toBe('aborted');
  });

  const eventuallyAsked = async (replica: number, nonce: string): Promise<void> => {
    await reached(
      () => replicas[replica]!.ledger(nonce),
      ({ length }) => length === 1,
      'it is asked to go on',
    );
  };

  test('cuts at random places: all of the answer, or a flagged part of it', async () => {
    const random = createPrng(seed);
    const ends: Record<string, number> = {};
    const fault = (): string => {
      const k = random.below(tokens + 1);
      const kinds = [
        `fin-after=${k}`,
        `reset-after=${k};mid-event`,
        `fin-byte=${random.below(5000)}`,
      ];
      const more = [`truncate-chunk=${k}`, `garbage=${k}`, `reset-byte=${random.below(5000)}`];
      return [...kinds, ...more][random.below(6)]!;
    };
    for (let round = 0; round < 4; round++) {
      const calls = Array.from({ length: 50 }, () => {
        const tags = ['a', 'b', 'c']
          .flatMap((name) => (random.below(3) > 0 ? `[[fault@${name}:${fault()}]]` : []))
          .join(' ');
        return { tags, c: start({ tags }) };
      });
      for (const { tags, c } of calls) {
        await c.ended;
        const what = `SEED=${seed} ${c.nonce} ${tags}: ${c.end} ${c.body.subarray(-300)}`;
        const { exact, duplicates, gaps, foreign } = c.ledger;
        expect(['done', 'stream-error', 'http-error'], what).toContain(c.end);
        expect({ exact, duplicates, gaps, foreign }, what).toEqual({
          ...{ exact: true, duplicates: 0, gaps: 0, foreign: 0 },
        });
        if (c.end === 'done') expect(c.ledger.tokens, what).toBe(tokens);
        ends[c.end] = (ends[c.end] ?? 0) + 1;
      }
      await expectQuiet(gateway);
    }
    process.stdout.write(`continuation ${mode} ${engine}: SEED=${seed} ${JSON.stringify(ends)}\n`);
    expect(await mismatches()).toBe(0);
    expect(ends.done).toBeGreaterThan(100);
  });
};

// Which engine listens makes no difference to what is kept of a stream.
const modes = [
  ...testEngines.map((engine) => [engine, 'text'] as const),
  [testEngines[0] as TestEngine, 'token_ids'] as const,
];
describe.each(modes)('continuation, engine %s, %s', (engine, mode) => suite(engine, mode));
