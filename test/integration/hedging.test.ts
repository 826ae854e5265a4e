/**
 * Hedging through the whole gateway: System B's own scenario (T9), T43 of the acceptance battery, and
 * the ways in which two exchanges of one request can end.
 */
import { describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { quantile } from '../../src/lib/quantile.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { tokensText } from '../../src/replica/tokens.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { replicaInProcess } from '../support/replica.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  openStream,
  post,
  sum,
  total,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';

const atOnce = { 'x-sluice-hedge': '1' };
const calm = { health: { interval: '10m' }, breaker: { mode: 'off' } } as const;
const hasToken = (text: string): boolean => /:0:[0-9a-f]{8}/.test(text);
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

interface Hedged {
  readonly ttftMs: number;
  readonly totalMs: number;
  readonly replica: string | null;
}

/** One stream of ten tokens, all of which come. */
async function tenTokens(gateway: GatewayProcess, prompt: string): Promise<Hedged> {
  const startMs = nowMs();
  const stream = await openStream(gateway.url, chatBody(prompt, { max_tokens: 10 }), atOnce);
  await stream.until(hasToken);
  const ttftMs = nowMs() - startMs;
  const { text } = await stream.ended;
  const seen = readSse(bytes(text), chatSeries(prompt));
  expect(seen).toMatchObject({ tokens: 10, exact: true, sawDone: true, errors: [] });
  expect(stream.headers.get('x-sluice-attempts')).toBe('2');
  return { ttftMs, totalMs: nowMs() - startMs, replica: stream.headers.get('x-sluice-replica') };
}

/** A fast and a slow replica; their names are r1 and r2. */
async function withFastAndSlow(use: (fast: Replica, slow: Replica) => Promise<void>) {
  const fast = await replicaInProcess({ profile: 'tokens:ttft=30ms,itl=30ms', seed: 1 });
  const slow = await replicaInProcess({ profile: 'tokens:ttft=500ms,itl=500ms', seed: 2 });
  try {
    await use(fast, slow);
  } finally {
    await Promise.all([fast.close(), slow.close()]);
  }
}

describe.each(testEngines)('hedging on %s', (engine) => {
  test('System B T9: five hedged requests in a row are served by the fast one, as fast as by it alone', () =>
    withFastAndSlow(async (fast, slow) => {
      const config = configOf([fast, slow], { ...calm, listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        await tenTokens(gateway, 'first connections');
        let round = 0;
        const measure = async (): Promise<{ mean: number; ttft: number }> => {
          const five: Hedged[] = [];
          for (let i = 0; i < 5; i++) five.push(await tenTokens(gateway, `${round++}`));
          expect(five.map(({ replica }) => replica)).toEqual(five.map(() => 'r1'));
          const mean = sum(five.map(({ totalMs }) => totalMs)) / 5;
          return { mean, ttft: sum(five.map(({ ttftMs }) => ttftMs)) / 5 };
        };
        await inTime(400, async () => (await measure()).mean);
        await inTime(60, async () => (await measure()).ttft);
        // The loser is cut when the winner's first token is there, not when its last one is.
        await inTime(100, async () => {
          const { aborted } = slow.stats();
          const stream = await openStream(gateway.url, chatBody('x', { max_tokens: 30 }), atOnce);
          await stream.until(hasToken);
          const sinceMs = nowMs();
          await slow.until((stats) => stats.in_flight === 0 && stats.aborted === aborted + 1);
          const tookMs = nowMs() - sinceMs;
          expect(fast.stats().in_flight).toBe(1);
          await stream.ended;
          return tookMs;
        });
        expect(slow.stats()).toMatchObject({ served: 0, failed: 0 });
        await expectQuiet(gateway);
        const { replicas } = await gateway.cluster();
        expect(replicas.map(({ in_flight }) => in_flight)).toEqual([0, 0]);
        expect(replicas.map(({ errors }) => errors)).toEqual([0, 0]);
      });
    }));

  test('after a delay: only a request that is still without its first token', () =>
    withFastAndSlow(async (fast, slow) => {
      const policy = 'round_robin';
      const config = configOf([fast, slow], { ...calm, listen: { engine } }, { policy });
      await withGateway({ config }, async (gateway) => {
        let hedged = 0;
        for (let i = 0; i < 4; i++) {
          const hedge = { 'x-sluice-hedge': '250' };
          const body = chatBody('late', { max_tokens: 1, stream: true });
          const answer = await post(gateway.url, body, hedge);
          expect(readSse(bytes(answer.text), chatSeries('late'))).toMatchObject({ tokens: 1 });
          hedged += Number(answer.headers.get('x-sluice-attempts')) - 1;
          expect(answer.headers.get('x-sluice-replica')).toBe('r1');
        }
        // The turn is the slow one's for at least every second request, and for the others never a hedge.
        expect(hedged).toBeGreaterThan(0);
        expect(hedged).toBeLessThan(4);
        expect(fast.stats().served).toBe(4);
        await slow.until(({ aborted }) => aborted === hedged);
        expect(slow.stats().started).toBe(hedged);
      });
    }));

  test('an answer that does not stream comes from whoever has it first', () =>
    withFastAndSlow(async (fast, slow) => {
      const config = configOf([fast, slow], { ...calm, listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        for (let i = 0; i < 4; i++) {
          const answer = await post(gateway.url, chatBody('whole', { max_tokens: 3 }), atOnce);
          const { choices, usage } = JSON.parse(answer.text);
          expect(choices[0].message.content).toBe(tokensText(chatSeries('whole'), 0, 3));
          expect(usage.completion_tokens).toBe(3);
          expect(answer.headers.get('x-sluice-replica')).toBe('r1');
          expect(answer.headers.get('x-sluice-attempts')).toBe('2');
        }
        await slow.until(({ aborted }) => aborted === 4);
        const metrics = await gateway.metrics();
        expect(total(metrics, 'sluice_tokens_total', { type: 'output' })).toBe(12);
        expect(total(metrics, 'sluice_requests_total')).toBe(4);
        expect(total(metrics, 'sluice_replica_requests_total')).toBe(8);
        expect(total(metrics, 'sluice_hedges_total')).toBe(4);
        await expectQuiet(gateway);
      });
    }));

  test('one fails: the other answers; both fail: a third is asked', async () => {
    await withReplicas(3, { profile: 'tokens:ttft=20ms,itl=1ms' }, async (replicas) => {
      const more = { ...calm, listen: { engine } };
      const config = configOf(replicas, more, { policy: 'round_robin' });
      await withGateway({ config }, async (gateway) => {
        const [first, second, third] = replicas as [Replica, Replica, Replica];
        for (const broken of [[first], [second], [first, second]]) {
          for (const replica of replicas) replica.setFaults([]);
          for (const replica of broken) replica.setFaults([{ fault: 'status=500' }]);
          for (let i = 0; i < 6; i++) {
            const body = chatBody('failing', { max_tokens: 2, stream: true });
            const answer = await post(gateway.url, body, atOnce);
            expect(readSse(bytes(answer.text), chatSeries('failing'))).toMatchObject({
              ...{ tokens: 2, exact: true, sawDone: true, errors: [] },
            });
          }
        }
        third.setFaults([{ fault: 'status=500' }]);
        const answer = await post(gateway.url, chatBody('failing'), atOnce);
        expect(answer.status).toBe(502);
        expect(answer.headers.get('x-sluice-attempts')).toBe('3');
        await expectQuiet(gateway);
      });
    });
  });

  test('the client leaves while both run: both replicas are told', async () => {
    await withReplicas(2, { hold: true }, async (replicas) => {
      const config = configOf(replicas, { ...calm, listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const leaving = new AbortController();
        const answer = fetch(`${gateway.url}/v1/chat/completions`, {
          method: 'POST',
          body: JSON.stringify(chatBody('leave', { stream: true })),
          headers: { 'content-type': 'application/json', ...atOnce },
          signal: leaving.signal,
        });
        await Promise.all(replicas.map((replica) => replica.until(({ held }) => held === 1)));
        leaving.abort();
        await expect(answer).rejects.toThrow();
        await Promise.all(replicas.map((replica) => replica.until((s) => s.aborted === 1)));
        await expectQuiet(gateway);
        const ends = await gateway.metrics();
        expect(total(ends, 'sluice_hedges_ended_total', { end: 'cancelled' })).toBe(1);
      });
    });
  });

  test('one replica: the normal path; a value that means nothing: 400', async () => {
    await withReplicas(1, {}, async (replicas) => {
      const config = configOf(replicas, { ...calm, listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const answer = await post(gateway.url, chatBody('alone'), atOnce);
        expect(answer.status).toBe(200);
        expect(answer.headers.get('x-sluice-attempts')).toBe('1');
        const refused = await post(gateway.url, chatBody('x'), { 'x-sluice-hedge': 'yes' });
        expect(refused.status).toBe(400);
        expect(refused.text).toContain('x-sluice-hedge');
      });
    });
  });
});

test('T43: automatic hedges cut the tail of one slow replica for at most 2 % more requests', async () => {
  await withReplicas(3, { profile: 'tokens:ttft=10ms,itl=1ms' }, async (replicas) => {
    const hedge = { automatic: true, budget: 0.02 };
    const config = configOf(replicas, { ...calm, hedge }, { policy: 'round_robin' });
    await withGateway({ config }, async (gateway) => {
      let requests = 0;
      const one = async (): Promise<number> => {
        const prompt = `request ${requests++}`;
        const more = { max_tokens: 3, stream_options: { include_usage: true } };
        const startMs = nowMs();
        const stream = await openStream(gateway.url, chatBody(prompt, more));
        await stream.until(hasToken);
        const ttftMs = nowMs() - startMs;
        const { text } = await stream.ended;
        expect(readSse(bytes(text), chatSeries(prompt))).toMatchObject({ tokens: 3, exact: true });
        return ttftMs;
      };
      for (let i = 0; i < 100; i++) await one();
      // One in 25 of one of three: 1.3 % of all requests.
      replicas[2]?.setFaults([{ fault: 'delay=2000', every: 25 }]);
      const times: number[] = [];
      for (let i = 0; i < 450; i++) times.push(await one());
      expect(replicas[2]?.stats().faults_applied).toBeGreaterThanOrEqual(6);
      expect(quantile(times, 0.99)).toBeLessThan(1000);
      await expectQuiet(gateway);
      const started = sum(replicas.map((replica) => replica.stats().started));
      expect(started - requests).toBeGreaterThan(0);
      expect(started - requests).toBeLessThanOrEqual(0.02 * requests);
      const served = sum(replicas.map((replica) => replica.stats().served));
      const aborted = sum(replicas.map((replica) => replica.stats().aborted));
      // The loser may be done before its cut is there.
      expect(served + aborted).toBe(started);
      expect(aborted).toBeLessThanOrEqual(started - requests);
      const metrics = await gateway.metrics();
      expect(total(metrics, 'sluice_requests_total')).toBe(requests);
      expect(total(metrics, 'sluice_tokens_total', { type: 'output' })).toBe(3 * requests);
      // A hedge that was late, or cut before it was written, has reached no replica.
      expect(total(metrics, 'sluice_hedges_total')).toBeGreaterThanOrEqual(started - requests);
      expect(total(metrics, 'sluice_hedges_total')).toBeLessThanOrEqual(0.02 * requests);
    });
  });
}, 60_000);
