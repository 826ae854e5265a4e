/**
 * The scenarios of the second system that need no gossip, on the whole gateway: T4 (a replica dies in
 * the middle of an answer), T5 (a queue behind two small replicas, on a gateway that has served) and T7
 * (a rolling update over the admin listener). T8 is in test/fault/breaker.test.ts, T9 in hedging.test.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { adminPost } from '../support/admin-post.ts';
import { figure } from '../support/figures.ts';
import { testEngines, withGateway } from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { configOf, model, withReplicas } from '../support/scenario.ts';
import { type Call, call, reached } from '../support/traffic.ts';

const token = 'scenarios-b';

/** All of its tokens in order, with one id, one finish and exact usage. */
function expectExact(c: Call, tokens: number): void {
  const { exact, gaps, duplicates, foreign, ids, finishReason } = c.ledger;
  expect(c.end, c.body.toString()).toBe('done');
  expect({ exact, gaps, duplicates, foreign, finishReason, tokens: c.tokens }).toEqual({
    ...{ exact: true, gaps: 0, duplicates: 0, foreign: 0, finishReason: 'length', tokens },
  });
  expect(ids.size).toBe(1);
}

const deaths: readonly [title: string, kills: readonly number[]][] = [
  ['at token 0', [0]],
  ['at token 1', [1]],
  ['at token 10', [10]],
  ['at token 19', [19]],
  ['at token 5, and its successor at token 12', [5, 12]],
];

test.concurrent.each(deaths)(
  'System B T4: the process of a replica ends %s: twenty tokens in order',
  async (_, kills) => {
    const profile = 'tokens:ttft=20ms,itl=10ms';
    const names = ['a', 'b', 'c'];
    const replicas: ReplicaProcess[] = [];
    try {
      for (const name of names) replicas.push(await replicaProcess({ profile, name }));
      // They are taken in this order, as long as they live.
      const rows = replicas.map(({ url }, i) => ({
        url,
        name: names[i]!,
        weight: 100 ** (2 - i) / 100,
      }));
      const rules = {
        policy: 'weighted_least_connections' as const,
        continuation: 'text' as const,
      };
      const config = configOf(replicas, {}, { ...rules, replicas: rows });
      await withGateway({ config }, async (gateway) => {
        const tags = kills.map((at, i) => `[[fault@${names[i]}:kill-after=${at}]]`).join(' ');
        const c = call(gateway.port, {
          ...{ nonce: `t4-${kills.join('-')}`, stream: true, tokens: 20, tags },
          extra: { stream_options: { include_usage: true } },
        });
        await c.ended;
        expectExact(c, 20);
        expect(c.body.toString()).toContain('"completion_tokens":20');
        const { rows: slots } = await gateway.slots();
        expect(slots).toEqual([]);
        const { replicas: after } = await gateway.cluster();
        expect(after.map(({ requests }) => requests)).toEqual(
          names.map((_name, i) => (i <= kills.length ? 1 : 0)),
        );
      });
    } finally {
      for (const replica of replicas) await replica.close();
    }
  },
);

test.each(testEngines)(
  'System B T5: eight clients, four places, on a gateway that has served 1,000: two waves, engine %s',
  async (engine) => {
    const tokenMs = 20;
    await withReplicas(
      2,
      { profile: `tokens:ttft=${tokenMs}ms,itl=${tokenMs}ms` },
      async (replicas) => {
        const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, max_in_flight: 2 }));
        const config = configOf(replicas, { listen: { engine } }, { replicas: rows });
        await withGateway({ config }, async (gateway) => {
          let turn = 0;
          const warm = async (): Promise<void> => {
            while (turn < 1000) {
              const c = await call(gateway.port, { nonce: `warm-${turn++}`, tokens: 1 }).ended;
              expect(c.end, c.body.toString()).toBe('done');
            }
          };
          await Promise.all(Array.from({ length: 8 }, warm));
          const startedMs = nowMs();
          const calls: Call[] = [];
          for (let i = 0; i < 8; i++) {
            const tags = '[[fault:hold-after=1]]';
            calls.push(call(gateway.port, { nonce: `t5-${i}`, stream: true, tokens: 10, tags }));
            await reached(
              () => gateway.slots(),
              ({ rows: inside }) => inside.length === i + 1,
              'it is in the gateway',
            );
          }
          expect((await gateway.cluster()).queue_depth).toBe(4);
          const releasing = setInterval(() => {
            for (const replica of replicas) replica.gate.release();
          }, 5);
          try {
            for (const c of calls) expectExact(await c.ended, 10);
          } finally {
            clearInterval(releasing);
          }
          // First come, first served: the four that found a place, then the four that waited.
          const ends = calls.map(({ endedAt }) => endedAt);
          expect(Math.max(...ends.slice(0, 4))).toBeLessThan(Math.min(...ends.slice(4)) + 100);
          expect(Math.max(...ends) - startedMs).toBeGreaterThan(2 * 9 * tokenMs);
          for (const replica of replicas) expect(replica.stats().waiting).toBe(0);
        });
      },
    );
  },
  60_000,
);

test.each(testEngines)(
  'System B T7: a rolling update over the admin listener fails nobody, engine %s',
  async (engine) => {
    const profile = 'tokens:ttft=10ms,itl=10ms';
    await withReplicas(3, { profile }, (old) =>
      withReplicas(3, { profile }, async (fresh) => {
        const config = configOf(old, { listen: { engine }, admin: { token } });
        await withGateway({ config }, async (gateway) => {
          const change = async (page: string, body?: object): Promise<void> => {
            const answer = await adminPost(gateway.adminUrl, token, page, body);
            expect(answer.status, JSON.stringify(answer.body)).toBeLessThan(300);
          };
          const calls: Call[] = [];
          let isOver = false;
          const loader = (async () => {
            for (let i = 0; !isOver; i++) {
              calls.push(call(gateway.port, { nonce: `t7-${i}`, stream: true, tokens: 2 }));
              await sleep(30); // the load is one request every so often, whatever becomes of it
            }
          })();
          await reached(
            async () => calls.length,
            (count) => count > 10,
            'the load runs',
          );
          for (const [i, { url }] of fresh.entries()) {
            await change('replicas', { model, name: `v2-${i + 1}`, url });
            await fresh[i]!.until(({ started }) => started > 0);
            await change(`replicas/r${i + 1}/drain`);
            await change(`replicas/r${i + 1}/remove`);
          }
          const updatedMs = nowMs();
          await reached(
            () => gateway.cluster(),
            ({ replicas }) =>
              replicas.length === 3 && replicas.every(({ name }) => name.startsWith('v2-')),
            'all are of the new version',
            8000,
          );
          isOver = true;
          await loader;
          for (const c of calls) expectExact(await c.ended, 2);
          expect(calls.length).toBeGreaterThanOrEqual(10);
          for (const replica of old)
            expect(replica.stats()).toMatchObject({ aborted: 0, failed: 0 });
          figure(
            'T46',
            `rolling update, ${engine}`,
            `0 of ${calls.length} failed, done ${Math.round(nowMs() - updatedMs)} ms after`,
          );
        });
      }),
    );
  },
);
