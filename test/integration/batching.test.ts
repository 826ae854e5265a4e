/** Completions that are put together to one call, through a whole gateway. */
import { describe, expect, test } from 'vitest';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  type Answer,
  chatBody,
  configOf,
  model,
  openStream,
  post,
  withReplicas,
} from '../support/scenario.ts';

const path = '/v1/completions';
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const tokens = 3;

/** Longer than a test: a batch is sent because it is full. */
const patient = (max_items: number) => ({ window: '10s', max_items });

const complete = (
  gateway: GatewayProcess,
  prompt: unknown,
  headers: Readonly<Record<string, string>> = {},
  more: object = {},
): Promise<Answer> =>
  post(gateway.url, { model, prompt, max_tokens: tokens, ...more }, headers, path);

/** What the replica must say to the prompt, however the request reached it. */
const textFor = (prompt: string): string => tokensText(tokenSeries(prompt), 0, tokens);

interface Completion {
  readonly choices: readonly { readonly index: number; readonly text: string }[];
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number };
}

function expectAnswer(answer: Answer, prompt: string): Completion {
  expect(answer.status).toBe(200);
  const completion = JSON.parse(answer.text) as Completion;
  expect(completion.choices).toMatchObject([{ index: 0, text: textFor(prompt) }]);
  expect(Number(answer.headers.get('content-length'))).toBe(Buffer.byteLength(answer.text));
  return completion;
}

const long = (i: number): string => `[[len=9]] prompt number ${i} ${'x'.repeat(17 * i)}`;

async function metric(gateway: GatewayProcess, name: string): Promise<number> {
  const { samples } = (await gateway.metrics()).get(name)!;
  return [...samples.values()].reduce((sum, value) => sum + value, 0);
}

/** No attempt is left anywhere, and every one was counted. */
async function expectQuiet(gateway: GatewayProcess): Promise<void> {
  await expect
    .poll(async () => (await gateway.cluster()).replicas.map((r) => r.in_flight))
    .toSatisfy((counts: number[]) => counts.every((count) => count === 0));
  expect(await metric(gateway, 'sluice_settle_conflicts_total')).toBe(0);
  expect(await metric(gateway, 'sluice_in_flight_leaks_total')).toBe(0);
}

const calls = (replica: Replica) => replica.ledger().filter((attempt) => attempt.path === path);

describe.each(testEngines)('on %s', (engine) => {
  function withBatches(
    batching: object,
    use: (gateway: GatewayProcess, replica: Replica) => Promise<void>,
    options: Parameters<typeof withReplicas>[1] = {},
  ): Promise<void> {
    return withReplicas(1, options, async ([replica]) => {
      const replicas = [{ url: replica!.url, name: 'r1', batching }];
      const config = configOf([], { listen: { engine } }, { replicas });
      await withGateway({ config }, async (gateway) => {
        await use(gateway, replica!);
        await expectQuiet(gateway);
      });
    });
  }

  test('eight at one time are one call, and each gets its own answer', async () => {
    await withBatches(patient(8), async (gateway, replica) => {
      const answers = await Promise.all(range(8).map((i) => complete(gateway, long(i))));
      const completions = answers.map((answer, i) => expectAnswer(answer, long(i)));
      for (const { headers } of answers) {
        expect(headers.get('x-sluice-batch')).toBe('8');
        expect(headers.get('x-sluice-attempts')).toBe('1');
        expect(headers.get('x-sluice-replica')).toBe('r1');
      }
      expect(new Set(answers.map(({ headers }) => headers.get('x-request-id'))).size).toBe(8);
      expect(calls(replica).length).toBe(1);
      const sum = completions.reduce((all, { usage }) => all + usage.completion_tokens, 0);
      expect(sum).toBe(8 * tokens);
      expect(await metric(gateway, 'sluice_batches_total')).toBe(1);
      expect(await metric(gateway, 'sluice_batched_requests_total')).toBe(8);
      expect(await metric(gateway, 'sluice_scheduling_latency_seconds')).toBe(0);
      const id = answers[3]!.headers.get('x-request-id')!;
      const explained = await fetch(`${gateway.adminUrl}/admin/explain/${id}`);
      expect(await explained.json()).toMatchObject({ attempts: [{ replica: 'r1', attempt: 1 }] });
    });
  });

  test('a window that is over sends who is there', async () => {
    await withBatches({ window: '50ms', max_items: 16 }, async (gateway, replica) => {
      expectAnswer(await complete(gateway, long(1)), long(1));
      expectAnswer(await complete(gateway, long(2)), long(2));
      expect(calls(replica).length).toBe(2);
    });
  });

  test('one bad item fails alone', async () => {
    await withBatches(patient(4), async (gateway, replica) => {
      const prompts = range(4).map((i) => (i === 2 ? '[[fault:status=400]] bad' : long(i)));
      const answers = await Promise.all(prompts.map((prompt) => complete(gateway, prompt)));
      for (const [i, answer] of answers.entries()) {
        if (i === 2)
          expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('simulated')]);
        else expectAnswer(answer, prompts[i]!);
        expect(answer.headers.get('x-sluice-batch')).toBeNull();
        expect(answer.headers.get('x-sluice-attempts')).toBe('2');
      }
      expect(calls(replica).length).toBe(5);
      expect(await metric(gateway, 'sluice_replica_errors_total')).toBe(0);
      expect(await metric(gateway, 'sluice_replica_retries_total')).toBe(0);
    });
  });

  test('one that makes the replica fail, fails alone too, and counts once', async () => {
    await withBatches(patient(8), async (gateway, replica) => {
      const prompts = range(8).map((i) => (i === 5 ? '[[fault:status=500]] poison' : long(i)));
      const answers = await Promise.all(prompts.map((prompt) => complete(gateway, prompt)));
      for (const [i, answer] of answers.entries()) {
        if (i === 5) expect(answer.status).toBe(502);
        else expectAnswer(answer, prompts[i]!);
      }
      expect(calls(replica).length).toBe(9);
      expect(await metric(gateway, 'sluice_batches_failed_total')).toBe(1);
      // The call, and the one that was to blame.
      expect(await metric(gateway, 'sluice_replica_errors_total')).toBe(2);
    });
  });

  test('a client that leaves harms nobody; when all have left the replica is told', async () => {
    const held = async (gateway: GatewayProcess, replica: Replica, leave: number[]) => {
      const aborts = range(3).map(() => new AbortController());
      const sent = range(3).map(async (i) => {
        const response = await fetch(gateway.url + path, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ model, prompt: long(i), max_tokens: tokens }),
          signal: aborts[i]!.signal,
        });
        return { status: response.status, headers: response.headers, text: await response.text() };
      });
      const ends = Promise.allSettled(sent);
      await replica.gate.arrivals(1);
      expect((await gateway.cluster()).replicas[0]!.in_flight).toBe(3);
      for (const i of leave) aborts[i]!.abort();
      return ends;
    };
    const use = async (gateway: GatewayProcess, replica: Replica): Promise<void> => {
      const some = held(gateway, replica, [1]);
      await expect.poll(() => calls(replica).length).toBe(1);
      await expect.poll(async () => (await gateway.cluster()).replicas[0]!.in_flight).toBe(2);
      replica.gate.release();
      const [first, second, third] = await some;
      expect(second?.status).toBe('rejected');
      for (const [i, end] of [first, undefined, third].entries()) {
        if (end?.status === 'fulfilled') expectAnswer(end.value, long(i));
      }
      expect([first?.status, third?.status]).toEqual(['fulfilled', 'fulfilled']);
      expect(replica.stats().aborted).toBe(0);
      await held(gateway, replica, [0, 1, 2]);
      await replica.until(({ aborted }) => aborted === 1);
    };
    await withBatches(patient(3), use, { hold: true });
  });

  test('streams, chats, lists and several choices are in no batch', async () => {
    await withBatches({ window: '10s', max_items: 2 }, async (gateway, replica) => {
      const plain = range(2).map(() => post(gateway.url, chatBody('x', { max_tokens: 1 })));
      const lists = range(2).map(() => complete(gateway, ['a', 'b']));
      const several = range(2).map(() => complete(gateway, 'a', {}, { n: 2 }));
      const streams = range(2).map(() => complete(gateway, 'a', {}, { stream: true }));
      const chats = range(2).map(async () => (await openStream(gateway.url, chatBody('x'))).ended);
      const all = await Promise.all([...plain, ...lists, ...several, ...streams]);
      await Promise.all(chats);
      for (const { headers } of all) expect(headers.get('x-sluice-batch')).toBeNull();
      expect(replica.stats().served).toBe(10);
      expect(await metric(gateway, 'sluice_batches_total')).toBe(0);
    });
  });

  test('other sampling, keys, sessions or idempotent requests share no call', async () => {
    await withBatches({ window: '1s', max_items: 2 }, async (gateway, replica) => {
      const pairs: [Record<string, string>, object][] = [
        [{}, { temperature: 0.5 }],
        [{ authorization: 'Bearer a' }, {}],
        [{ 'x-session-id': 's' }, {}],
        [{ 'idempotency-key': 'k' }, {}],
        [{ accept: 'application/json' }, {}],
      ];
      const answers = await Promise.all(
        pairs.map(([headers, more], i) => complete(gateway, long(i), headers, more)),
      );
      for (const [i, answer] of answers.entries()) expectAnswer(answer, long(i));
      expect(calls(replica).length).toBe(pairs.length);
    });
  });

  test('two tenants share no call, though their replica has a key of the gateway: none pays for the other', async () => {
    await withReplicas(1, {}, async ([replica]) => {
      const keys = [newKey(), newKey()];
      const tenants = keys.map((key, i) => ({
        name: `t${i}`,
        keys: [{ id: 'k', sha256: sha256Of(key) }],
      }));
      const of = { api_key: 'sk-of-the-gateway', batching: patient(2) };
      const replicas = [{ url: replica!.url, name: 'r1', ...of }];
      const config = configOf([], { listen: { engine }, tenants }, { replicas });
      await withGateway({ config }, async (gateway) => {
        const senders = [0, 1, 1, 0];
        const answers = await Promise.all(
          senders.map((tenant, i) =>
            complete(gateway, long(i), { authorization: `Bearer ${keys[tenant]}` }),
          ),
        );
        for (const [i, answer] of answers.entries()) {
          expectAnswer(answer, long(i));
          expect(answer.headers.get('x-sluice-batch')).toBe('2');
        }
        // Those of one call have its id.
        const [first, second, third, fourth] = answers.map(({ text }) => JSON.parse(text).id);
        expect([fourth, third]).toEqual([first, second]);
        expect(first).not.toBe(second);
        expect(calls(replica!).length).toBe(2);
      });
    });
  });

  test('a replica that did not opt in is sent each by itself', async () => {
    await withReplicas(1, {}, async (replicas) => {
      const config = configOf(replicas, { listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const answers = await Promise.all(range(8).map((i) => complete(gateway, long(i))));
        for (const [i, answer] of answers.entries()) expectAnswer(answer, long(i));
        expect(calls(replicas[0]!).length).toBe(8);
      });
    });
  });
});

test('a replica that joins with batching is sent batches, once its model has one', async () => {
  await withReplicas(2, {}, async ([first, second]) => {
    const token = 'batching-admin';
    const config = configOf([first!], { admin: { token } });
    await withGateway({ config }, async (gateway) => {
      const headers = { authorization: `Bearer ${token}` };
      const body = { name: 'r2', url: second!.url, model, batching: patient(4) };
      expect((await post(gateway.adminUrl, body, headers, '/admin/replicas')).status).toBe(201);
      const answers = await Promise.all(range(4).map((i) => complete(gateway, long(i))));
      for (const [i, answer] of answers.entries()) {
        expectAnswer(answer, long(i));
        expect(answer.headers.get('x-sluice-replica')).toBe('r2');
      }
      expect(calls(second!).length).toBe(1);
    });
  });
});
