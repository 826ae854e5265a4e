/**
 * Usage events through the whole gateway: one for each request that reached a replica, with the tokens
 * that its client got, over streams that break and go on, clients that leave, and tenants. Both engines.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createPrng } from '../../src/lib/prng.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { promptTokenIds, renderChat } from '../../src/replica/tokens.ts';
import { readUsage } from '../../src/telemetry/usage-report.ts';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { answerTo } from '../support/openai-fleet.ts';
import { chatBody, configOf, openStream, sum, withReplicas } from '../support/scenario.ts';
import { answerTokens, Call } from '../support/traffic.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const calls = 240;
const atOnce = 24;
const breaks = '[[fault@a:truncate-chunk=5]]';
const keys = { acme: newKey(), other: newKey() };
const tenantNames = ['acme', 'other'] as const;

interface Planned {
  readonly call: Call;
  readonly tenant: (typeof tenantNames)[number];
  readonly tags: string;
}
interface UsageEvent {
  readonly req_id: string;
  readonly tenant: string;
  readonly key_id: string;
  readonly outcome: string;
  readonly attempts: number;
  readonly stream: boolean;
  readonly input_tokens: number | null;
  readonly output_tokens: number | null;
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-usage-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const eventsIn = (files: readonly string[]): UsageEvent[] =>
  files
    .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as UsageEvent);

const outputOf = ({ call }: Planned): number =>
  call.isStream ? call.ledger.tokens : JSON.parse(call.body.toString()).usage.completion_tokens;

const inputOf = ({ call, tags }: Planned): number =>
  promptTokenIds(renderChat([{ role: 'user', content: `nonce=${call.nonce} ${tags}` }])).length;

/** The calls of one client after the other, so many clients at a time. */
async function runCalls(port: number): Promise<Planned[]> {
  const random = createPrng(seed);
  const planned: Planned[] = [];
  const client = async (): Promise<void> => {
    while (planned.length < calls) {
      const tenant = tenantNames[random.below(2)]!;
      const stream = random.below(10) < 7;
      const leavesAfter = stream && random.below(10) < 4 ? random.below(10) : -1;
      const tags = stream && random.below(3) === 0 ? breaks : '';
      const headers = { authorization: `Bearer ${keys[tenant]}` };
      const call = new Call(port, { nonce: `u-${planned.length}`, stream, tags, headers });
      planned.push({ call, tenant, tags });
      if (leavesAfter >= 0) {
        await call.until(({ tokens }) => tokens >= leavesAfter).catch(() => {}); // it was over before
        call.leave();
      }
      await call.ended;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, client));
  return planned;
}

test.each(testEngines)(
  'several choices, counted from the first to the last, engine %s',
  async (engine) => {
    const file = join(folder, `choices-${engine}.ndjson`);
    const profile = 'tokens:ttft=2ms,itl=2ms';
    const texts = [0, 1, 2].map((choice) => answerTo('[[len=20]]', choice, 20));
    await withReplicas(1, { profile }, async (replicas) => {
      const config = configOf(
        replicas,
        { listen: { engine }, usage: { file } },
        { stream_usage: 'continuous' },
      );
      await withGateway({ config }, async (gateway) => {
        const headers = { 'x-request-id': 'whole' };
        const body = chatBody('[[len=20]]', { n: 3 });
        const { text } = await (await openStream(gateway.url, body, headers)).ended;
        const said = ['', '', ''];
        for (const line of text.split('\n').filter((each) => each.startsWith('data: {'))) {
          const { choices, usage } = JSON.parse(line.slice('data: '.length));
          expect(usage ?? undefined, 'nobody asked for it').toBeUndefined();
          for (const { index, delta } of choices) said[index] += delta.content ?? '';
        }
        expect(said).toEqual(texts);
        expect(text.trimEnd()).toMatch(/data: \[DONE\]$/);
        // Who leaves is billed for what was on its way.
        const tags = { n: 3, max_tokens: 10_000, ignore_eos: true };
        const leaving = new Call(gateway.port, { nonce: 'left', stream: true, extra: tags });
        await leaving.until(({ tokens }) => tokens >= 10);
        leaving.leave();
        await leaving.ended;
        await expectQuiet(gateway);
        expect((await gateway.stop()).code).toBe(0);
      });
    });
    const [whole, left] = eventsIn([file]);
    expect(whole).toMatchObject({ req_id: 'whole', outcome: 'ok', output_tokens: 60 });
    expect(left).toMatchObject({ req_id: 'left', outcome: 'client_gone' });
    expect(left!.output_tokens).toBeGreaterThanOrEqual(10);
    expect(left!.output_tokens).toBeLessThan(30_000);
  },
);

const cases = testEngines.flatMap((engine) =>
  (['text', 'off'] as const).map((c) => [engine, c] as const),
);

test.each(cases)('billed is what the clients got, engine %s, continuation %s', async (...which) => {
  const [engine, continuation] = which;
  const own = join(folder, `${engine}-${continuation}`);
  mkdirSync(own);
  const file = join(own, 'usage.ndjson');
  const profile = 'tokens:ttft=2ms,itl=2ms';
  const tenants = tenantNames.map((name) => ({
    ...{ name, keys: [{ id: `key-of-${name}`, sha256: sha256Of(keys[name]) }] },
  }));
  let planned: Planned[] = [];
  await withReplicas(1, { profile, name: 'a' }, async ([first]) => {
    await withReplicas(1, { profile, name: 'b' }, async ([second]) => {
      const replicas = [first!, second!].map(({ url }, i) => ({ url, name: 'ab'[i]! }));
      const config = {
        listen: { engine },
        threads: { acceptors: 2 },
        usage: { file },
        retry: { budget: 1, budget_min: 1000 },
        tenants,
        models: [{ name: 'm', continuation, stream_usage: 'end' as const, replicas }],
      };
      await withGateway({ config }, async (gateway) => {
        planned = await runCalls(gateway.port);
        await expectQuiet(gateway);
        expect((await gateway.stop()).code).toBe(0);
      });
    });
  });
  const files = readdirSync(own).map((name) => join(own, name));
  expect(readdirSync(own).sort()).toEqual(['usage.0.ndjson', 'usage.1.ndjson']);
  const events = new Map(eventsIn(files).map((event) => [event.req_id, event]));
  expect(eventsIn(files).length, 'one each').toBe(events.size);
  for (const each of planned) {
    const { call, tenant } = each;
    const event = events.get(call.nonce);
    if (call.end === 'left') {
      if (event === undefined) {
        expect(call.tokens, 'it left before a replica was asked').toBe(0);
        continue;
      }
      // Its last bytes may have been on their way when it left, or its stream had broken.
      expect(event).toMatchObject({
        tenant,
        outcome: expect.stringMatching(/^(ok|client_gone|error)$/),
      });
      // What was on its way to it when it left.
      expect(event.output_tokens ?? 0).toBeGreaterThanOrEqual(call.tokens);
      expect(event.output_tokens ?? 0).toBeLessThanOrEqual(answerTokens);
      continue;
    }
    const isBroken = continuation === 'off' && call.end === 'stream-error';
    expect(isBroken ? 'done' : call.end, call.nonce).toBe('done');
    expect(event, call.nonce).toMatchObject({
      ...{ tenant, key_id: `key-of-${tenant}`, outcome: isBroken ? 'error' : 'ok' },
      ...{ stream: call.isStream, output_tokens: outputOf(each) },
      // A stream that broke has not said what its prompt had: it is estimated.
      input_tokens: isBroken ? expect.any(Number) : inputOf(each),
      estimated: isBroken,
    });
  }
  const continued = planned.filter(({ tags, call }) => tags !== '' && call.end === 'done');
  const isContinued = continued.some(({ call }) => events.get(call.nonce)!.attempts > 1);
  expect(isContinued).toBe(continuation === 'text');
  const report = await readUsage(
    files,
    ['tenant'],
    Number.NEGATIVE_INFINITY,
    Number.POSITIVE_INFINITY,
  );
  expect(report).toMatchObject({ duplicates: 0, unreadable: 0 });
  expect(report.total.requests).toBe(events.size);
  expect(report.total.output_tokens).toBe(
    sum([...events.values()].map(({ output_tokens }) => output_tokens ?? 0)),
  );
  expect(report.rows.map(({ group }) => group[0]).sort()).toEqual(['acme', 'other']);
});
