/**
 * Many requests at once whose replies are random: in every API, whole and in streams, with hedges, comments,
 * replicas that fail and answers that drip. Whatever happens: what a client gets was said by one model from
 * beginning to end, no byte of a discarded reply is in it, and what all of them were told that they used is
 * what usage events and metrics have.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { post, sum, total, withNamedReplicas } from '../support/scenario.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const calls = 240;
const atOnce = 12;

const names = ['s1', 's2', 'l1', 'l2'];
const apis = ['chat', 'completions', 'messages', 'responses'] as const;
const paths = {
  chat: '/v1/chat/completions',
  completions: '/v1/completions',
  messages: '/v1/messages',
  responses: '/v1/responses',
};
/** What a small replica does; the model that answers, '' for either. */
const manners = [
  ['', 'small'],
  ['refusal', 'large'],
  ['filtered', 'large'],
  ['unsure=header', 'large'],
  ['unsure=field', 'large'],
  ['refusal;delay=30', 'large'],
  ['status=500', ''],
  ['fin=body', ''],
] as const;

const pick = <T>(random: Prng, from: readonly T[]): T => from[random.below(from.length)] as T;

interface Call {
  readonly api: (typeof apis)[number];
  readonly stream: boolean;
  readonly text: string;
  readonly wish: 'small' | '';
  readonly hedged: boolean;
  readonly expected: 'small' | 'large' | '';
}

/** Both small replicas do the same in their own way, or one of them fails and is asked nothing more. */
function callOf(random: Prng, index: number): Call {
  const [first, expected] = pick(random, manners);
  const [second, other] = random.below(3) === 0 ? pick(random, manners) : [first, expected];
  const cut = random.below(2) === 0 ? '' : `;split=${1 + random.below(700)}`;
  const tag = (name: string, fault: string): string =>
    `[[fault@${name}:${(fault + cut).replace(/^;/, '')}]]`;
  const tags = [first, second].map((fault, i) =>
    fault + cut === '' ? '' : tag(names[i] as string, fault),
  );
  const wish = random.below(8) === 0 ? 'small' : '';
  const said = wish === 'small' ? (expected === '' ? '' : 'small') : expected;
  const saidOther = wish === 'small' ? (other === '' ? '' : 'small') : other;
  return {
    ...{ api: pick(random, apis), stream: random.below(2) === 0, wish },
    text: `call ${index} [[len=${1 + random.below(9)}]] ${tags.join(' ')}`,
    hedged: random.below(4) === 0,
    expected: said === saidOther ? said : '',
  };
}

function bodyOf({ api, stream, text }: Call): object {
  const messages = [{ role: 'user', content: text }];
  const isOpenAi = api === 'chat' || api === 'completions';
  const usage = stream && isOpenAi ? { stream_options: { include_usage: true } } : {};
  const limit = api === 'responses' ? { max_output_tokens: 20 } : { max_tokens: 20 };
  const prompt =
    api === 'completions' ? { prompt: text } : api === 'responses' ? { input: text } : { messages };
  return { model: 'small', stream, ...prompt, ...usage, ...limit };
}

/** Who said it, and the output tokens it says it has. */
function readAnswer(text: string): { by: 'small' | 'large'; output: number } {
  const ids = [...text.matchAll(/"(?:chatcmpl-|cmpl-|msg_|resp_)((\w)\d-\d+)"/g)];
  // One answer of one replica: its items are named after it.
  expect(new Set(ids.map(([, id]) => id)).size).toBe(1);
  const counts = [...text.matchAll(/"(?:completion_tokens|output_tokens)":(\d+)/g)];
  return { by: ids[0]?.[2] === 's' ? 'small' : 'large', output: Number(counts.at(-1)?.[1]) };
}

async function runAll(
  gateway: GatewayProcess,
  plan: readonly Call[],
): Promise<Record<'small' | 'large', number>> {
  const used = { small: 0, large: 0 };
  const next = plan.values();
  const one = async (): Promise<void> => {
    for (const call of next) {
      const headers: Record<string, string> = {};
      if (call.wish !== '') headers['x-sluice-cascade'] = call.wish;
      if (call.hedged) headers['x-sluice-hedge'] = '1';
      const answer = await post(gateway.url, bodyOf(call), headers, paths[call.api]);
      const what = `SEED=${seed} ${JSON.stringify(call)} ${answer.text}`;
      expect(answer.status, what).toBe(200);
      expect(answer.text, what).not.toContain('"error":{');
      const { by, output } = readAnswer(answer.text);
      if (call.expected !== '') expect(by, what).toBe(call.expected);
      const isDiscarded = /"low_confidence"|"refusal"|content_filter/.test(answer.text);
      if (isDiscarded) expect(call.wish, what).toBe('small');
      const model = answer.headers.get('x-sluice-model');
      if (model !== null) expect(model, what).toBe(by);
      used[by] += output;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  return used;
}

test.each(testEngines)(
  'no byte of a discarded reply, and sums that agree, on %s',
  async (engine) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-cascade-fuzz-'));
    const file = join(folder, 'usage.ndjson');
    const random = createPrng(seed);
    const plan = Array.from({ length: calls }, (_, index) => callOf(random, index));
    try {
      await withNamedReplicas(names, async (replicas) => {
        const rows = replicas.map(({ url }, i) => ({ url, name: names[i]! }));
        const on_reply = { refusal: true, header: 'x-low-confidence', field: 'low_confidence' };
        const models = [
          {
            ...{ name: 'small', fallbacks: ['large'], replicas: rows.slice(0, 2) },
            cascade: { model: 'large', on_reply },
          },
          { name: 'large', replicas: rows.slice(2) },
        ];
        const config = {
          ...{ listen: { engine }, usage: { file }, breaker: { mode: 'off' as const }, models },
          ...{ retry: { budget: 1, budget_min: 100 }, streams: { keep_alive: '100ms' } },
        };
        await withGateway({ config }, async (gateway) => {
          const used = await runAll(gateway, plan);
          const metrics = await gateway.metrics();
          const { samples } = metrics.get('sluice_fallbacks_total')!;
          const wentOn = [...samples].filter(([labels]) => /refusal|low_confidence/.test(labels));
          expect(sum(wentOn.map(([, count]) => count))).toBeGreaterThan(calls / 8);
          for (const model of ['small', 'large'] as const) {
            const counted = total(metrics, 'sluice_tokens_total', { model, type: 'output' });
            expect(counted, `SEED=${seed} ${model}`).toBe(used[model]);
          }
          await gateway.stop();
          const lines = readFileSync(file, 'utf8').trim().split('\n');
          const events = lines.map((line) => JSON.parse(line));
          expect(events).toHaveLength(calls);
          for (const model of ['small', 'large'] as const) {
            const outputs = events.filter((e) => e.model === model).map((e) => e.output_tokens);
            expect(sum(outputs), `SEED=${seed} ${model}`).toBe(used[model]);
          }
        });
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
