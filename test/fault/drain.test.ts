/**
 * Leaving: T44 and T45 of the acceptance battery, as a process that gets signals. SLUICE_FULL=1 has
 * streams of 20 s among those of 5 s.
 */
import { describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { figure } from '../support/figures.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  load,
  openStream,
  post,
  type Reading,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';
import { eventually } from '../support/until.ts';

const isFull = process.env.SLUICE_FULL === '1';
const encoder = new TextEncoder();
const prompt = (i: number, length: number): string => `nonce=n${i} [[len=${length}]]`;

function openStreams(gateway: GatewayProcess, count: number, length: number): Promise<Reading[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const reading = await openStream(
        gateway.url,
        chatBody(prompt(i, length), { max_tokens: length }),
      );
      await reading.until((text) => text.includes(':0:'));
      return reading;
    }),
  );
}

const ledgerOf = (text: string, i: number, length: number) =>
  readSse(encoder.encode(text), chatSeries(prompt(i, length)));

describe.concurrent.each(testEngines)('%s', (engine) => {
  test('T44: SIGTERM under load: not ready at once, streams finish whole, nothing is lost', async () => {
    // At 50 ms a token: 5.5 s, and 20 s.
    const groups = [{ count: 20, length: 110 }, ...(isFull ? [{ count: 10, length: 400 }] : [])];
    const drainMs = isFull ? 40_000 : 15_000;
    await withReplicas(2, { profile: 'tokens:ttft=5ms,itl=50ms' }, async (replicas) => {
      const config = configOf(replicas, {
        listen: { engine },
        drain: { settle: '2s', timeout: `${drainMs}ms` },
      });
      await withGateway({ config }, async (gateway) => {
        const streams = await Promise.all(
          groups.map(({ count, length }) => openStreams(gateway, count, length)),
        );
        expect((await gateway.ready()).status).toBe(200);
        const signalled = nowMs();
        gateway.kill('SIGTERM');
        expect(await notReady(gateway)).toMatchObject({ status: 503, reason: 'draining' });
        // Long before the time to settle is over; how soon is tested below.
        expect(nowMs() - signalled).toBeLessThan(1000);
        expect((await fetch(`${gateway.url}/readyz`)).status).toBe(503);

        // The load balancer has not noticed yet: for `settle` requests are served as ever.
        const late = await post(gateway.url, chatBody('late [[len=2]]', { max_tokens: 2 }));
        expect(late.status).toBe(200);
        expect(late.headers.get('connection')).toBe('close');
        let refused = late;
        while (refused.status === 200) {
          refused = await post(gateway.url, chatBody('later [[len=2]]', { max_tokens: 2 }));
        }
        expect(nowMs() - signalled).toBeGreaterThanOrEqual(1950);
        expect(refused.status).toBe(503);
        expect(JSON.parse(refused.text).error.code).toBe('draining');
        expect(refused.headers.get('retry-after')).toBe('1');
        expect(refused.headers.get('connection')).toBe('close');
        expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);

        for (const [group, { length }] of groups.entries()) {
          for (const [i, stream] of streams[group]!.entries()) {
            const { text, cut } = await stream.ended;
            const ledger = ledgerOf(text, i, length);
            expect(cut).toBe(false);
            const whole = { tokens: length, exact: true, sawDone: true, errors: [] };
            expect(ledger).toMatchObject(whole);
          }
        }
        const finished = nowMs();
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
        expect(nowMs() - finished).toBeLessThan(2000);
        expect(nowMs() - signalled).toBeLessThan(drainMs + 500);
        const seconds = ((nowMs() - signalled) / 1000).toFixed(1);
        figure('T44', engine, `lost 0 of ${streams.flat().length}, exit 0 after ${seconds} s`);
      });
      for (const replica of replicas) expect(replica.stats()).toMatchObject({ aborted: 0, cut: 0 });
    });
  }, 90_000);

  test('T44: readiness is off within 250 ms of SIGTERM, with streams in flight', async () => {
    await withReplicas(2, { profile: 'tokens:ttft=5ms,itl=50ms' }, (replicas) =>
      inTime(250, async () => {
        const config = configOf(replicas, { listen: { engine }, drain: { timeout: '30s' } });
        const unquiet = 'its streams go on';
        return withGateway({ config, unquiet }, async (gateway) => {
          await openStreams(gateway, 20, 2000);
          const signalled = nowMs();
          gateway.kill('SIGTERM');
          await notReady(gateway);
          return nowMs() - signalled;
        });
      }),
    );
  });

  test('T44: a closed loop of clients loses nothing to SIGTERM but answers of 503', async () => {
    await withReplicas(2, { profile: 'uniform:2ms-6ms' }, async (replicas) => {
      const config = configOf(replicas, { listen: { engine }, drain: { timeout: '5s' } });
      await withGateway({ config }, async (gateway) => {
        const running = load({ url: gateway.url }, { durationMs: 1500, connections: 32 });
        await replicas[0]!.until(({ served }) => served > 50);
        gateway.kill('SIGTERM');
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
        const { metrics } = await running;
        const served = replicas.reduce((sum, replica) => sum + replica.stats().served, 0);
        // Whatever a replica has served, a client has received.
        expect(metrics.statuses.get(200)).toBe(served);
        for (const replica of replicas) {
          expect(replica.stats()).toMatchObject({ aborted: 0, in_flight: 0, ids_repeated: 0 });
        }
      });
    });
  });

  test('T45: a second SIGTERM cuts: error event, no [DONE], gone within a second', async () => {
    await withReplicas(1, { profile: 'tokens:ttft=5ms,itl=50ms' }, async ([replica]) => {
      const config = configOf([replica!], { listen: { engine }, drain: { timeout: '30s' } });
      await withGateway({ config }, async (gateway) => {
        const streams = await openStreams(gateway, 10, 2000);
        gateway.kill('SIGTERM');
        await eventually('it drains', async () => (await gateway.ready()).status === 503);
        const cutAt = nowMs();
        gateway.kill('SIGTERM');
        await expectCut(streams, 2000);
        expect(nowMs() - cutAt).toBeLessThan(1000);
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
        expect(nowMs() - cutAt).toBeLessThan(1000);
        await replica!.until(({ in_flight }) => in_flight === 0);
        expect(replica!.stats().aborted).toBe(10);
      });
    });
  });

  test('T45: the drain limit cuts what is left, queued requests included', async () => {
    await withReplicas(1, { profile: 'tokens:ttft=5ms,itl=50ms' }, async ([replica]) => {
      const config = configOf(
        [replica!],
        { listen: { engine }, drain: { timeout: '700ms' } },
        { replicas: [{ url: replica!.url, name: 'r1', max_in_flight: 4 }] },
      );
      await withGateway({ config }, async (gateway) => {
        const streams = await openStreams(gateway, 4, 2000);
        const queued = post(gateway.url, chatBody('waits'));
        await eventually('one waits', async () => (await gateway.cluster()).queue_depth === 1);
        const signalled = nowMs();
        gateway.kill('SIGTERM');
        await expectCut(streams, 2000);
        expect(nowMs() - signalled).toBeGreaterThanOrEqual(690);
        expect(nowMs() - signalled).toBeLessThan(1700);
        const refused = await queued;
        expect(refused.status).toBe(503);
        expect(JSON.parse(refused.text).error.code).toBe('shutting_down');
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
        expect(nowMs() - signalled).toBeLessThan(1700);
      });
    });
  });
});

test('an idle gateway leaves at once', async () => {
  await withReplicas(1, {}, async ([replica]) => {
    await withGateway({ config: configOf([replica!]) }, async (gateway) => {
      expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      await expectQuiet(gateway);
      const signalled = nowMs();
      gateway.kill('SIGINT');
      expect(await gateway.exited).toEqual({ code: 0, signal: null });
      expect(nowMs() - signalled).toBeLessThan(1500);
    });
  });
});

/** What /readyz says once it is no longer 200. */
async function notReady(gateway: GatewayProcess): Promise<{ status: number; reason: string }> {
  for (;;) {
    const ready = await gateway.ready();
    if (ready.status !== 200) return ready;
  }
}

async function expectCut(streams: readonly Reading[], length: number): Promise<void> {
  for (const [i, stream] of streams.entries()) {
    const { text } = await stream.ended;
    const ledger = ledgerOf(text, i, length);
    expect(ledger).toMatchObject({ exact: true, sawDone: false, unfinished: false });
    expect(ledger.tokens).toBeGreaterThan(0);
    expect(ledger.errors).toMatchObject([{ code: 'shutting_down' }]);
  }
}
