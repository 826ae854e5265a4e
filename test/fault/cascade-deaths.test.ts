/**
 * A forwarder that dies between judging the reply of a small model and telling of it: the request goes on to the
 * larger one all the same, once, and nobody has got or paid for what was discarded.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { FaultStage } from '../../src/lib/fault-point.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { CrashKind } from '../../src/shm/threads.ts';
import { fallbackCauses } from '../support/fallback-causes.ts';
import { testEngines, withGateway } from '../support/gateway.ts';
import { type Answer, chatBody, post, withNamedReplicas } from '../support/scenario.ts';
import { dieAt, expectNoBlame, faultEnv, faultToken } from '../support/thread-faults.ts';

const tokens = 6;
/** Exchanges of the request whose forwarder dies, the one with the larger model among them. */
const deaths: readonly (readonly [stage: FaultStage, how: CrashKind, exchanges: number])[] = [
  ['judged', 'exit', 3], // nothing says that the reply was unwanted: the small model is asked again
  ['given-back', 'exit', 2],
  ['given-back', 'throw', 2], // at undici, which has cut the connection already and tells nobody
];

const cases = testEngines.flatMap((engine) =>
  deaths.flatMap(([stage, how, exchanges]) =>
    [false, true].map((stream) => ({ engine, stream, stage, how, exchanges })),
  ),
);
// Which engine listens makes little difference to how a thread behind it dies.
const isWhole = process.env.SLUICE_BATTERY === '1';

test.each(isWhole ? cases : cases.slice(0, cases.length / 2 + 1))(
  'engine $engine, stream $stream, at $stage by $how',
  async ({ engine, stream, stage, how, exchanges }) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-judged-'));
    const file = join(folder, 'usage.ndjson');
    const key = newKey();
    try {
      await withNamedReplicas(['small', 'large'], async ([small, large]) => {
        const cascade = { model: 'large', on_reply: { refusal: true } };
        const config = {
          ...{ listen: { engine }, admin: { token: faultToken }, usage: { file } },
          ...{ threads: { forwarders: 1 }, retry: { budget: 1, budget_min: 100 } },
          tenants: [{ name: 't', keys: [{ id: 'k', sha256: sha256Of(key) }] }],
          models: [
            { name: 'm', cascade, replicas: [{ url: small!.url, name: 'small' }] },
            { name: 'large', replicas: [{ url: large!.url, name: 'large' }] },
          ],
        };
        await withGateway({ config, env: faultEnv }, async (gateway) => {
          const answers: Answer[] = [];
          const ask = async (): Promise<void> => {
            const usage = stream ? { stream_options: { include_usage: true } } : {};
            const more = { max_tokens: tokens, stream, ...usage };
            const body = chatBody('x [[fault@small:refusal]]', more);
            answers.push(await post(gateway.url, body, { authorization: `Bearer ${key}` }));
          };
          await dieAt(gateway, ['forwarder-0', 'forwarder', stage], ask, { how });
          await ask(); // the next thread judges as the one before did
          const counts = answers.map(({ headers }) => Number(headers.get('x-sluice-attempts')));
          const usual = answers.slice(1).map(() => 2);
          expect(counts.toSorted()).toEqual([...usual, exchanges]);
          for (const { status, headers, text } of answers) {
            expect([status, headers.get('x-sluice-model')], text).toEqual([200, 'large']);
            expect(text).not.toMatch(/refusal|chatcmpl-small/);
            expect(text).toContain('chatcmpl-large-');
            if (stream) expect(text).toMatch(/data: \[DONE\]\s*$/);
          }
          // Each went on once, and only the one that nobody was told of was asked for twice.
          expect(await fallbackCauses(gateway)).toEqual({ refusal: answers.length });
          expect(large!.ledger()).toHaveLength(answers.length);
          expect(small!.ledger()).toHaveLength(answers.length + exchanges - 2);
          await expectNoBlame(gateway);
          await gateway.stop();
          const lines = readFileSync(file, 'utf8').trim().split('\n');
          const events = lines.map((line) => JSON.parse(line));
          expect(events.map((event) => [event.model, event.output_tokens])).toEqual(
            answers.map(() => ['large', tokens]),
          );
        });
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);
