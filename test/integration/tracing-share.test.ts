/**
 * The share of requests that is traced, and what becomes of spans that nobody takes: through the whole
 * gateway, at a real receiver of OTLP.
 */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newSpanId, newTraceId, parseTraceparent } from '../../src/protocol/traceparent.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { OtlpReceiver, spanKinds } from '../support/otlp-receiver.ts';
import { replicaInProcess } from '../support/replica.ts';
import { total } from '../support/scenario.ts';
import { headerOf } from '../support/told-headers.ts';
import { type Call, call } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

describe('a share of the requests', () => {
  /** So many calls, each with an id of its own, over a few connections. */
  const calls = async (port: number, amount: number): Promise<Call[]> => {
    const done: Call[] = [];
    const client = async (): Promise<void> => {
      while (done.length < amount) {
        const one = call(port, { nonce: `s-${newSpanId()}` });
        done.push(one);
        await one.ended;
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    return done;
  };

  async function withTracing(
    tracing: ConfigInput['tracing'],
    use: (gateway: GatewayProcess, replica: Replica) => Promise<void>,
  ): Promise<void> {
    const replica = await replicaInProcess({ model: 'm', profile: 'instant' });
    try {
      const models = [{ name: 'm', replicas: [{ url: replica.url, name: 'r1' }] }];
      await withGateway({ config: { tracing, models } }, (gateway) => use(gateway, replica));
    } finally {
      await replica.close();
    }
  }

  test('is traced, the same requests at the gateway and at the replica', async () => {
    const receiver = await OtlpReceiver.listen();
    try {
      await withTracing({ endpoint: receiver.endpoint, sample: 0.5 }, async (gateway, replica) => {
        const done = await calls(gateway.port, 200);
        const told = done.map(({ nonce }) => {
          const head = replica.ledger(nonce)[0]?.head ?? '';
          return parseTraceparent(headerOf(head, 'traceparent') ?? '');
        });
        expect(new Set(told.map((each) => each?.traceId)).size).toBe(done.length);
        const sampled = told.filter((each) => each?.flags === 1);
        expect(sampled.length).toBeGreaterThan(50);
        expect(sampled.length).toBeLessThan(150);
        await receiver.until(() => receiver.spans.length >= 3 * sampled.length);
        const traces = new Set(receiver.spans.map(({ traceId }) => traceId));
        expect(traces).toEqual(new Set(sampled.map((each) => each!.traceId)));
        const clients = receiver.spans.filter(({ kind }) => kind === spanKinds.client);
        expect(new Set(clients.map(({ spanId }) => spanId))).toEqual(
          new Set(sampled.map((each) => each!.spanId)),
        );
      });
      // What was written last is sent before the process ends.
      expect(receiver.spans.length % 3).toBe(0);
    } finally {
      await receiver.close();
    }
  });

  test('more than it may be in a second are served without spans, and counted', async () => {
    const receiver = await OtlpReceiver.listen();
    const tracing = { endpoint: receiver.endpoint, sample: 1, max_per_second: 2 };
    try {
      await withTracing(tracing, async (gateway, replica) => {
        const done = await calls(gateway.port, 100);
        expect(done.map(({ status }) => status)).toEqual(done.map(() => 200));
        const skipped = total(await gateway.metrics(), 'sluice_traces_skipped_total');
        expect(skipped).toBeGreaterThan(0);
        await receiver.until(() => receiver.spans.length >= 3 * (done.length - skipped));
        expect(receiver.spans).toHaveLength(3 * (done.length - skipped));
        expect(replica.stats().served).toBe(done.length);
      });
    } finally {
      await receiver.close();
    }
  });

  test.each([
    ['refuses spans', 400, false],
    ['is not there', 0, true],
  ])(
    'a collector that %s harms no request, and the loss is counted',
    async (_, failWith, isGone) => {
      const receiver = await OtlpReceiver.listen();
      const { endpoint } = receiver;
      receiver.failWith = failWith;
      if (isGone) await receiver.close();
      try {
        await withTracing({ endpoint, sample: 1, max_per_second: 1000 }, async (gateway) => {
          const done = await calls(gateway.port, 100);
          expect(done.map(({ status }) => status)).toEqual(done.map(() => 200));
          const lost = async (): Promise<number> =>
            total(await gateway.metrics(), 'sluice_trace_spans_total', { result: 'failed' });
          await eventually('lost spans are counted', async () => (await lost()) > 0, 30_000);
          const after = await calls(gateway.port, 8);
          expect(after.map(({ status }) => status)).toEqual(after.map(() => 200));
          await gateway.said('spans are lost');
        });
      } finally {
        if (!isGone) await receiver.close();
      }
    },
    60_000, // the exporter of OpenTelemetry tries for 5 s before it gives a batch up
  );

  test('a collector that hangs: so many spans wait for it, the rest is counted, requests go on', async () => {
    const receiver = await OtlpReceiver.listen();
    receiver.isHung = true;
    const tracing = { endpoint: receiver.endpoint, sample: 1, max_per_second: 100_000 };
    try {
      await withTracing(tracing, async (gateway) => {
        const lost = async (): Promise<number> =>
          total(await gateway.metrics(), 'sluice_trace_spans_total', { result: 'failed' }) +
          total(await gateway.metrics(), 'sluice_trace_records_dropped_total');
        // Three spans each: twice as many as may wait. No batch is given up that soon.
        const done = await calls(gateway.port, 2800);
        expect(done.map(({ status }) => status)).toEqual(done.map(() => 200));
        await eventually('what does not fit is counted', async () => (await lost()) > 0, 10_000);
        expect(receiver.exports.length).toBeGreaterThan(0);
        expect(receiver.spans).toEqual([]);
        // It is back: what comes from here on arrives.
        receiver.isHung = false;
        const traceId = newTraceId();
        const headers = { traceparent: `00-${traceId}-${newSpanId()}-01` };
        await eventually(
          'spans arrive again',
          async () => {
            await call(gateway.port, { nonce: `s-${newSpanId()}`, headers }).ended;
            return receiver.spans.some((span) => span.traceId === traceId);
          },
          30_000,
        );
      });
    } finally {
      await receiver.close();
    }
  }, 90_000);
});
