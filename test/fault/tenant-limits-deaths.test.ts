/**
 * A forwarder dies while requests of a tenant are in its hands: whatever it had got to, afterwards the tenant's
 * limits have taken what its requests have used, to the token, and as many run as there are.
 */
import { expect, test } from 'vitest';
import { type FaultStage, faultStages } from '../../src/lib/fault-point.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  type Answer,
  chatBody,
  configOf,
  openStream,
  post,
  withReplicas,
} from '../support/scenario.ts';
import { dieAt, faultEnv, faultToken } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

const keys = { limited: newKey(), other: newKey() };
const as = (tenant: keyof typeof keys) => ({ authorization: `Bearer ${keys[tenant]}` });
/** One unit a second runs into each bucket, so that milliseconds of time tell fractions of one. */
const perMinute = 60;
const concurrency = 4;
/** Set aside of a request, and what its answer has. */
const [most, length] = [50, 7];

interface Bucket {
  readonly full_in_ms: number;
}
interface LimitsView {
  readonly requests: Bucket;
  readonly input_tokens: Bucket;
  readonly output_tokens: Bucket;
  readonly concurrency: { readonly running: number };
}
const kinds = ['requests', 'input_tokens', 'output_tokens'] as const;
type Units = Readonly<Record<(typeof kinds)[number], number>>;

async function limitsOf({ adminUrl }: GatewayProcess): Promise<LimitsView> {
  const headers = { authorization: `Bearer ${faultToken}` };
  const page = await fetch(`${adminUrl}/admin/tenants`, { headers });
  const { tenants } = (await page.json()) as { tenants: { name: string; limits: LimitsView }[] };
  return tenants.find(({ name }) => name === 'limited')!.limits;
}

/** What was ever taken, but for a constant: when each bucket will be full, in units. */
async function levels(gateway: GatewayProcess): Promise<Units> {
  for (;;) {
    const from = performance.now();
    const limits = await limitsOf(gateway);
    const to = performance.now();
    if (to - from > 100) continue; // a tenth of a unit
    const seconds = (kind: (typeof kinds)[number]): number =>
      ((from + to) / 2 + limits[kind].full_in_ms) / 1000;
    return Object.fromEntries(kinds.map((kind) => [kind, seconds(kind)])) as unknown as Units;
  }
}

/** Taken since then, in whole units; what is no whole one was not taken by a request. */
async function takenSince(gateway: GatewayProcess, before: Units): Promise<Units> {
  const after = await levels(gateway);
  const taken = kinds.map((kind) => {
    const units = after[kind] - before[kind];
    expect(Math.abs(units - Math.round(units)), kind).toBeLessThan(0.4);
    return [kind, Math.round(units)] as const;
  });
  return Object.fromEntries(taken) as unknown as Units;
}

const runs = (gateway: GatewayProcess, count: number): Promise<void> =>
  eventually(`${count} run`, async () => (await limitsOf(gateway)).concurrency.running === count);

interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
}

/** Of a whole answer, or of the last chunk of a stream. */
function usageOf({ text }: Answer): Usage {
  const json = text.startsWith('data:') ? /data: (.*"usage":\{.*)/.exec(text)?.[1] : text;
  return (JSON.parse(json ?? '') as { usage: Usage }).usage;
}

/** What each request took: as its answer says, and the one whose answer was lost as `lost` does. */
async function expectTaken(
  gateway: GatewayProcess,
  before: Units,
  answers: readonly Answer[],
  lost?: { readonly status: number; readonly usage: Usage },
): Promise<void> {
  await runs(gateway, 0); // the end of a request is told after its answer
  const good = answers.filter(({ status }) => status === 200);
  const others = answers.filter(({ status }) => status !== 200);
  expect(others.map(({ status }) => status)).toEqual(lost === undefined ? [] : [lost.status]);
  const usages = good.map(usageOf);
  for (const usage of usages) expect(usage.completion_tokens).toBe(length);
  if (lost !== undefined) usages.push(lost.usage);
  expect(await takenSince(gateway, before)).toEqual({
    requests: answers.length,
    input_tokens: usages.reduce((sum, { prompt_tokens }) => sum + prompt_tokens, 0),
    output_tokens: usages.reduce((sum, { completion_tokens }) => sum + completion_tokens, 0),
  });
}

const ask = (gateway: GatewayProcess, stream: boolean, tags = ''): Promise<Answer> => {
  const usage = stream ? { stream: true, stream_options: { include_usage: true } } : {};
  const body = chatBody(`x [[len=${length}]] ${tags}`, { max_tokens: most, ...usage });
  return post(gateway.url, body, as('limited'));
};

/** As many as may run do, and one more is refused: no place was lost, and none was given twice. */
async function expectPlaces(gateway: GatewayProcess, replica: Replica): Promise<void> {
  const open = Array.from({ length: concurrency }, () => ask(gateway, false, '[[hold]]'));
  await replica.gate.arrivals(concurrency);
  expect((await ask(gateway, false)).status).toBe(429);
  await runs(gateway, concurrency);
  replica.gate.release();
  for (const { status } of await Promise.all(open)) expect(status).toBe(200);
}

/** Whoever is asked again comes to the gate when it does. */
async function released(replica: Replica, held: readonly Promise<Answer>[]): Promise<Answer[]> {
  const all = Promise.all(held);
  let isOver = false;
  const over = all.finally(() => {
    isOver = true;
  });
  await eventually('all are answered', async () => {
    replica.gate.release();
    return isOver;
  });
  return over;
}

async function withTenants(
  engine: (typeof testEngines)[number],
  use: (gateway: GatewayProcess, replica: Replica, plain: Usage) => Promise<void>,
): Promise<void> {
  await withReplicas(1, {}, async ([replica]) => {
    const rates = Object.fromEntries(kinds.map((kind) => [`${kind}_per_minute`, perMinute]));
    const key = (tenant: keyof typeof keys) => [{ id: 'k', sha256: sha256Of(keys[tenant]) }];
    const config = configOf([replica!], {
      ...{ listen: { engine }, admin: { token: faultToken }, threads: { forwarders: 1 } },
      retry: { budget: 1, budget_min: 100 },
      tenants: [
        { name: 'limited', limits: { ...rates, burst: '24h', concurrency }, keys: key('limited') },
        { name: 'other', keys: key('other') },
      ],
    });
    await withGateway({ config, env: faultEnv }, async (gateway) => {
      // From here on no bucket is full.
      const first = await ask(gateway, false);
      expect(first.status).toBe(200);
      await runs(gateway, 0);
      await use(gateway, replica!, usageOf(first));
    });
  });
}

const stages = ['connecting', 'sent', 'headers', 'done-before-release'] as const;
const cases = testEngines.flatMap((engine) => [
  ...stages.map((stage) => ({ engine, stage, stream: false, how: 'exit' as const })),
  ...[...stages, 'all-written' as const].map((stage) => {
    return { engine, stage, stream: true, how: 'exit' as const };
  }),
  ...[false, true].map((stream) => {
    return { engine, stage: 'headers' as const, stream, how: 'throw' as const };
  }),
]);

// Which engine listens makes little difference to how a thread behind it dies.
const isWhole = process.env.SLUICE_BATTERY === '1';
const share = isWhole ? cases : cases.slice(0, cases.length / 2 + 1);

test.each(share)(
  'engine $engine, at $stage of one that streams: $stream, by $how',
  async ({ engine, stage, stream, how }) => {
    await withTenants(engine, async (gateway, replica, plain) => {
      const before = await levels(gateway);
      // Two are in its hands when it dies at a third of the same tenant: they are asked again.
      const held = [false, true].map((isStream) => ask(gateway, isStream, '[[hold]]'));
      await replica.gate.arrivals(held.length);
      await runs(gateway, held.length);
      const answers: Answer[] = [];
      const request = async (): Promise<void> => {
        answers.push(await ask(gateway, stream));
      };
      await dieAt(gateway, ['forwarder-0', 'forwarder', stage], request, { how });
      await runs(gateway, held.length);
      answers.push(...(await released(replica, held)));
      // A whole answer dies with its thread once its slot is settled: the replica has counted it.
      const isLost = stage === 'done-before-release' && !stream;
      const none = { prompt_tokens: 0, completion_tokens: 0 };
      const lost = isLost ? { status: 503, usage: plain } : undefined;
      const failed = how === 'throw' ? { status: 500, usage: none } : lost;
      await expectTaken(gateway, before, answers, failed);
      await expectPlaces(gateway, replica);
    });
  },
  60_000,
);

test.each(testEngines)(
  'engine %s, in the middle of streams: what nobody has counted stays taken, once',
  async (engine) => {
    await withTenants(engine, async (gateway, replica, plain) => {
      const before = await levels(gateway);
      const body = chatBody(`x [[len=${length}]] [[fault:hold-after=3]]`, { max_tokens: most });
      const broken = [1, 2].map(() => openStream(gateway.url, body, as('limited')));
      const streams = await Promise.all(broken);
      for (const stream of streams) await stream.until((text) => text.includes(':2:'));
      const answers: Answer[] = [];
      await dieAt(
        gateway,
        ['forwarder-0', 'forwarder', 'connecting'],
        async () => {
          answers.push(await ask(gateway, false));
        },
        { how: 'exit' },
      );
      for (const stream of streams) {
        const { text } = await stream.ended;
        expect(text).toContain('data: {"error":');
        expect(text).not.toContain('[DONE]');
      }
      await runs(gateway, 0);
      const { requests, output_tokens, input_tokens } = await takenSince(gateway, before);
      expect({ requests, output_tokens }).toEqual({
        requests: answers.length + streams.length,
        output_tokens: length * answers.length + most * streams.length,
      });
      // Theirs as it was estimated: of a few tokens each, and of neither twice.
      const ofStreams = input_tokens - answers.length * plain.prompt_tokens;
      expect(ofStreams).toBeGreaterThan(0);
      expect(ofStreams % streams.length).toBe(0);
      replica.gate.release();
      await expectPlaces(gateway, replica);
    });
  },
  60_000,
);

test('every stage of a forwarder is one of these', () => {
  const met = new Set<FaultStage>([...cases.map(({ stage }) => stage), 'mid-event']);
  expect(faultStages.forwarder.filter((stage) => !met.has(stage))).toEqual([]);
});
