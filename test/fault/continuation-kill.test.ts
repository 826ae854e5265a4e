/** T02: a replica is killed under many streams at once, and the retry budget decides which go on. */
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { withReplicas } from '../support/replica.ts';
import { answerTokens, type Call, call } from '../support/traffic.ts';

/** Two replicas, of which the first is killed while it holds `streams` streams behind token 5. */
async function killUnder(
  streams: number,
  config: Omit<ConfigInput, 'models'>,
  check: (calls: readonly Call[], gateway: GatewayProcess) => Promise<void>,
): Promise<void> {
  const profile = 'tokens:ttft=2ms,itl=2ms';
  await withReplicas(1, { profile, name: 'a' }, async ([first]) => {
    await withReplicas(1, { profile, name: 'b' }, async ([second]) => {
      const replicas = [
        { url: first!.url, name: 'a', weight: 1000 },
        { url: second!.url, name: 'b', weight: 0.001 },
      ];
      const model = { name: 'm', continuation: 'text', replicas } as const;
      const models = [{ ...model, policy: 'weighted_least_connections' as const }];
      await withGateway({ config: { ...config, models } }, async (gateway) => {
        const tags = '[[fault@a:hold-after=5]]';
        const calls = Array.from({ length: streams }, (_, i) =>
          call(gateway.port, { nonce: `kill-${i}`, stream: true, tags }),
        );
        await Promise.all(calls.map((c) => c.until(({ tokens: came }) => came === 5)));
        await first!.kill();
        for (const c of calls) await c.ended;
        await check(calls, gateway);
        await expectQuiet(gateway);
        expect((await second!.stats()).continuation_mismatches).toBe(0);
      });
    });
  });
}

test.each(testEngines)('T02: a replica is killed under its streams, engine %s', async (engine) => {
  const retry = { budget: 1, budget_min: 1000 };
  await killUnder(50, { listen: { engine }, retry }, async (calls) => {
    for (const { end, ledger } of calls) {
      expect([end, ledger.exact, ledger.tokens]).toEqual(['done', true, answerTokens]);
      expect([ledger.ids.size, ledger.finishReason]).toEqual([1, 'length']);
    }
  });
});

test.each(testEngines)('the retry budget bounds continuations too, engine %s', async (engine) => {
  const retry = { budget: 0, budget_min: 3 };
  await killUnder(10, { listen: { engine }, retry }, async (calls) => {
    const ends = calls.map(({ end }) => end);
    // The first three take the budget; later ones may find it free again.
    expect(ends.filter((end) => end === 'done').length).toBeGreaterThanOrEqual(3);
    for (const { end, ledger } of calls) {
      expect(['done', 'stream-error']).toContain(end);
      const { exact, duplicates, gaps, tokens: came } = ledger;
      expect({ exact, duplicates, gaps }).toEqual({ exact: true, duplicates: 0, gaps: 0 });
      expect(came).toBe(end === 'done' ? answerTokens : 5);
    }
  });
});
