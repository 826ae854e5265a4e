/** How quickly an acceptor refuses, and how long hostile input holds its loop. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { AcceptorHarness } from '../support/acceptor-harness.ts';
import { chat, codeOf, post } from '../support/acceptor-wire.ts';
import { RawClient, rawRequest } from '../support/raw-client.ts';

/** 50 ms on a machine of its own. Noise only adds: one calm run of three shows what a body costs. */
const lagMsMax = 250;
/** The acceptor tells the worst lag of the last second. */
const lagWindowMs = 1100;

describe.each(['uws', 'node'] as const)('acceptor, engine %s', (engine) => {
  test('T38: a full request ring answers 503 quickly, and cancels are sent once there is room', async () => {
    const harness = await AcceptorHarness.start({ engine, slots: 8 });
    const leaver = await RawClient.connect(harness.port);
    await leaver.send(post(chat()));
    const held = await harness.arrival();
    harness.schedulerStalled = true;
    expect(harness.fillRequestRing()).toBeGreaterThan(0);
    leaver.reset();
    await harness.until(() => harness.column(held.slot, 'clientGone') === 1, 'the abort is seen');
    const times: number[] = [];
    for (let i = 0; i < 100; i++) {
      const started = performance.now();
      const { responses } = await rawRequest(harness.port, post(chat()));
      times.push(performance.now() - started);
      expect(codeOf(responses[0]!.body)).toBe('ring_full');
      expect(responses[0]!.status).toBe(503);
      expect(responses[0]!.headers.get('retry-after-ms')).toBe('1000');
    }
    expect(quantile(times, 0.95), 'p95 of a refusal in ms').toBeLessThan(50); // 20 ms on its own
    expect(harness.cancels).toEqual([]);
    harness.schedulerStalled = false;
    await harness.cancelled(1);
    expect(AcceptorHarness.isSame(harness.cancels[0]!, held)).toBe(true);
    harness.refuse(held, errors.CLIENT_GONE.number);
    await harness.quiet();
    await harness.stop();
  });

  test('T31: hostile JSON never holds the loop', async () => {
    const harness = await AcceptorHarness.start({
      engine,
      maxBody: 16 * 1024 * 1024,
      arenaBytes: 128 * 1024 * 1024,
    });
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    const keys = Array.from({ length: 1_000_000 }, (_, k) => `"${k}":1`).join();
    const messages = '{"role":"user","content":"a"},'.repeat(99_999);
    const hostile: readonly [string, number, string][] = [
      ['brackets', 400, '['.repeat(1_000_000)],
      ['keys', 400, `{"model":"m",${keys}}`],
      [
        'escapes in place of messages',
        400,
        `{"model":"m","messages":"${'\\u0041'.repeat(1_600_000)}"}`,
      ],
      ['messages', 200, `{"model":"m","messages":[${messages}{}]}`],
      ['proto', 200, '{"model":"m","__proto__":{"x":1},"messages":[]}'],
    ];
    for (const [name, status, body] of hostile) {
      let calmest = Number.POSITIVE_INFINITY;
      for (let tries = 0; tries < 3 && calmest >= lagMsMax; tries++) {
        if (tries > 0) await new Promise((resolve) => setTimeout(resolve, lagWindowMs));
        const { responses } = await rawRequest(harness.port, post(body));
        expect(responses[0]!.status, name).toBe(status);
        await harness.beat();
        calmest = Math.min(calmest, harness.lagMs);
      }
      expect(calmest, name).toBeLessThan(lagMsMax);
    }
    await harness.stop();
  });
});
