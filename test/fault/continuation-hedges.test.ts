/**
 * Streams that break and hedges, through a whole gateway: what either of two exchanges began is
 * continued, and what goes on behind a part of the answer is one exchange's alone.
 */
import { expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { expectQuiet, type GatewayProcess, withGateway } from '../support/gateway.ts';
import { configOf, total, withReplicas } from '../support/scenario.ts';
import { answerTokens, type Call, call } from '../support/traffic.ts';

type Mode = 'text' | 'token_ids';

/** Three replicas; the first is picked first whenever it may be, then the second. */
function withThree(
  mode: Mode,
  use: (gateway: GatewayProcess, replicas: readonly Replica[]) => Promise<void>,
): Promise<void> {
  return withReplicas(3, { profile: 'tokens:ttft=2ms,itl=1ms' }, async (replicas) => {
    const weighted = replicas.map(({ url }, i) => {
      return { url, name: `r${i + 1}`, weight: 1000 / 100 ** i };
    });
    const more = { health: { interval: '10m' }, breaker: { mode: 'off' } } as const;
    const policy = 'weighted_least_connections';
    const config = configOf(
      replicas,
      { ...more, retry: { budget: 1, budget_min: 1000 } },
      { policy, continuation: mode, replicas: weighted },
    );
    await withGateway({ config }, async (gateway) => {
      await use(gateway, replicas);
      await expectQuiet(gateway);
      for (const replica of replicas) expect(replica.stats().continuation_mismatches).toBe(0);
    });
  });
}

function expectWhole({ end, ledger, body }: Call): void {
  expect(end, body.toString()).toBe('done');
  expect(ledger).toMatchObject({ exact: true, tokens: answerTokens, sawDone: true, errors: [] });
  expect(ledger.ids.size).toBe(1);
}

const startsAt = (replica: Replica, nonce: string): number[] =>
  replica.ledger(nonce).map(({ startToken }) => startToken);

const cases = (['text', 'token_ids'] as const).flatMap((mode) => [
  [mode, 'the first exchange', 0, 1] as const,
  [mode, 'the hedge', 1, 0] as const,
]);
test.each(cases)('%s: %s began the answer and broke', (mode, _, began, stood) =>
  withThree(mode, async (gateway, replicas) => {
    const nonce = `${mode}-${began}`;
    replicas[began]?.setFaults([{ fault: 'fin-after=5' }]);
    replicas[stood]?.setFaults([{ fault: 'stall=headers', count: 1 }]);
    const headers = { 'x-sluice-hedge': '1' };
    const c = await call(gateway.port, { nonce, stream: true, headers }).ended;
    expectWhole(c);
    expect(c.headers['x-sluice-replica']).toBe(`r${began + 1}`);
    expect(startsAt(replicas[began]!, nonce)).toEqual([0]);
    expect(startsAt(replicas[stood]!, nonce), 'cut, and then asked to go on').toEqual([0, 5]);
    const families = await gateway.metrics();
    expect(total(families, 'sluice_hedges_total')).toBe(1);
    expect(total(families, 'sluice_stream_continuations_total', { result: 'ok' })).toBe(1);
    const tokens = total(families, 'sluice_tokens_total', { type: 'output' });
    expect(tokens, 'those of the one that was cut are nobody’s').toBe(answerTokens);
  }),
);

test.each(['text', 'token_ids'] as const)('%s: what goes on is not hedged', (mode) =>
  withThree(mode, async (gateway, replicas) => {
    const nonce = `${mode}-alone`;
    replicas[0]?.setFaults([{ fault: 'fin-after=5' }]);
    replicas[1]?.setFaults([{ fault: 'delay=1500' }]);
    // Late enough for the first token of the first replica, and long before that of the second.
    const headers = { 'x-sluice-hedge': '500' };
    const c = await call(gateway.port, { nonce, stream: true, headers }).ended;
    expectWhole(c);
    expect(replicas.map((replica) => startsAt(replica, nonce))).toEqual([[0], [5], []]);
    const families = await gateway.metrics();
    expect(total(families, 'sluice_hedges_total')).toBe(0);
    expect(total(families, 'sluice_late_events_total')).toBe(0);
  }),
);
