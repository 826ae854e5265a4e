/**
 * T02: a replica is killed under many streams at once, and the retry budget decides which go on. What
 * is billed is what the clients have got, to the token.
 */
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { promptTokenIds, renderChat } from '../../src/replica/tokens.ts';
import { figure } from '../support/figures.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { withReplicas } from '../support/replica.ts';
import { sum, total } from '../support/scenario.ts';
import { answerTokens, type Call, call } from '../support/traffic.ts';

type Continuation = 'text' | 'token_ids';

const tokensAtKill = 5;
const tags = `[[fault@a:hold-after=${tokensAtKill}]]`;
const cases = testEngines.flatMap((engine) =>
  (['text', 'token_ids'] as const).map((continuation) => [engine, continuation] as const),
);

/** Two replicas, of which the first is killed while it holds `streams` streams behind token 5. */
async function killUnder(
  streams: number,
  config: Omit<ConfigInput, 'models'>,
  continuation: Continuation,
  check: (calls: readonly Call[], gateway: GatewayProcess) => Promise<void>,
): Promise<void> {
  const profile = 'tokens:ttft=2ms,itl=2ms';
  await withReplicas(1, { profile, name: 'a' }, async ([first]) => {
    await withReplicas(1, { profile, name: 'b' }, async ([second]) => {
      const replicas = [
        { url: first!.url, name: 'a', weight: 1000 },
        { url: second!.url, name: 'b', weight: 0.001 },
      ];
      const model = { name: 'm', continuation, replicas } as const;
      const models = [{ ...model, policy: 'weighted_least_connections' as const }];
      await withGateway({ config: { ...config, models } }, async (gateway) => {
        const calls = Array.from({ length: streams }, (_, i) => {
          // The others are not told what they used, and billed all the same.
          const extra = i % 2 === 0 ? { stream_options: { include_usage: true } } : {};
          return call(gateway.port, { nonce: `kill-${i}`, stream: true, tags, extra });
        });
        await Promise.all(calls.map((c) => c.until(({ tokens: came }) => came === tokensAtKill)));
        await first!.kill();
        for (const c of calls) await c.ended;
        await check(calls, gateway);
        await expectQuiet(gateway);
        expect((await second!.stats()).continuation_mismatches).toBe(0);
      });
    });
  });
}

const promptTokens = ({ nonce }: Call): number =>
  promptTokenIds(renderChat([{ role: 'user', content: `nonce=${nonce} ${tags}` }])).length;

/** What the counters say, less what the clients have got: by their tokens, not by what they were told. */
async function billedTooMuch(gateway: GatewayProcess, calls: readonly Call[]): Promise<object> {
  const families = await gateway.metrics();
  const billed = (type: string): number => total(families, 'sluice_tokens_total', { type });
  return {
    input: billed('input') - sum(calls.map(promptTokens)),
    output: billed('output') - sum(calls.map(({ ledger }) => ledger.tokens)),
  };
}

test.each(cases)('T02: a replica is killed under its streams, engine %s, %s', async (...which) => {
  const [engine, continuation] = which;
  const retry = { budget: 1, budget_min: 1000 };
  await killUnder(50, { listen: { engine }, retry }, continuation, async (calls, gateway) => {
    for (const [i, c] of calls.entries()) {
      const { end, ledger } = c;
      expect([end, ledger.exact, ledger.tokens]).toEqual(['done', true, answerTokens]);
      expect([ledger.ids.size, ledger.finishReason]).toEqual([1, 'length']);
      if (i % 2 === 1) expect(ledger.usage).toBe(undefined);
      else {
        const used = { prompt_tokens: promptTokens(c), completion_tokens: answerTokens };
        expect(ledger.usage).toMatchObject(used);
      }
    }
    const tooMuch = await billedTooMuch(gateway, calls);
    expect(tooMuch).toEqual({ input: 0, output: 0 });
    const ledgers = calls.map(({ ledger }) => ledger);
    const lost = calls.filter(({ end }) => end !== 'done').length;
    const doubled = sum(ledgers.map(({ duplicates }) => duplicates));
    const missing = sum(ledgers.map(({ gaps }) => gaps));
    figure('T02', 'lost, doubled, missing', `${lost}, ${doubled}, ${missing}`);
    figure('T02', 'billed less delivered', JSON.stringify(tooMuch), 'tokens');
  });
});

test.each(cases)('T02: the retry budget bounds continuations, engine %s, %s', async (...which) => {
  const [engine, continuation] = which;
  const retry = { budget: 0, budget_min: 3 };
  await killUnder(10, { listen: { engine }, retry }, continuation, async (calls, gateway) => {
    const ends = calls.map(({ end }) => end);
    // The first three take the budget; later ones may find it free again.
    expect(ends.filter((end) => end === 'done').length).toBeGreaterThanOrEqual(3);
    for (const { end, ledger } of calls) {
      expect(['done', 'stream-error']).toContain(end);
      const { exact, duplicates, gaps, tokens: came } = ledger;
      expect({ exact, duplicates, gaps }).toEqual({ exact: true, duplicates: 0, gaps: 0 });
      expect(came).toBe(end === 'done' ? answerTokens : tokensAtKill);
    }
    expect(await billedTooMuch(gateway, calls)).toEqual({ input: 0, output: 0 });
  });
});
