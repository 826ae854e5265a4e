/** Sessions, prompts, priorities, keys and deadlines, through the whole gateway. */
import { expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { expectQuiet, type GatewayProcess, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, sum, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

type Headers = Readonly<Record<string, string>>;

const replicaOf = ({ headers }: { headers: globalThis.Headers }): string =>
  headers.get('x-sluice-replica') ?? '';

const waiting = async (gateway: GatewayProcess): Promise<number> =>
  (await gateway.cluster()).queue_depth;

/** One replica that takes one request at a time and holds it; `use` asks while it does. */
function withBusyReplica(
  use: (gateway: GatewayProcess, replica: Replica, ask: Ask) => Promise<void>,
): Promise<void> {
  return withReplicas(1, { hold: true }, async ([replica]) => {
    const config = configOf([replica!], {}, { replicas: [{ ...row(replica!), max_in_flight: 1 }] });
    await withGateway({ config }, async (gateway) => {
      const order: string[] = [];
      const ask: Ask = async (name, headers, more = {}) => {
        const body = chatBody(name, { max_tokens: 8, ...more });
        const { status, text } = await post(gateway.url, body, headers);
        order.push(name);
        return { status, text };
      };
      await use(gateway, replica!, Object.assign(ask, { order }));
      replica!.gate.release();
      await expectQuiet(gateway);
    });
  });
}

interface Ask {
  (name: string, headers?: Headers, more?: object): Promise<{ status: number; text: string }>;
  /** Names in the order in which they were answered. */
  readonly order?: string[];
}

const row = ({ url }: { readonly url: string }) => ({ url, name: 'r1' });

/** Lets held requests through one by one until `count` have been. */
async function releaseOneByOne(replica: Replica, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await replica.gate.arrivals(1);
    replica.gate.release(1);
  }
}

test('a session stays with one replica, by header, body key or cache key; others are spread', async () => {
  await withReplicas(4, {}, (replicas) =>
    withGateway({ config: configOf(replicas, {}, { policy: 'round_robin' }) }, async (gateway) => {
      const homes = async (body: object, headers: Headers = {}): Promise<Set<string>> => {
        const seen = new Set<string>();
        for (let i = 0; i < 8; i++) {
          seen.add(
            replicaOf(await post(gateway.url, { ...chatBody(`turn ${i}`), ...body }, headers)),
          );
        }
        return seen;
      };
      expect((await homes({}, { 'x-session-id': 'a' })).size).toBe(1);
      expect((await homes({ session_id: 'b' })).size).toBe(1);
      expect((await homes({ prompt_cache_key: 'c' })).size).toBe(1);
      expect((await homes({})).size).toBe(4);
    }),
  );
});

test('prefix_affinity: the first 64 characters of a prompt decide, what follows does not', async () => {
  await withReplicas(4, {}, (replicas) =>
    withGateway(
      { config: configOf(replicas, {}, { policy: 'prefix_affinity' }) },
      async (gateway) => {
        const home = async (prompt: string): Promise<string> =>
          replicaOf(await post(gateway.url, chatBody(prompt)));
        const head = 'You are a helpful assistant of the department for open questions';
        const first = await home(head);
        for (let i = 0; i < 6; i++) expect(await home(`${head}, number ${i}`)).toBe(first);
        const others = await Promise.all(
          Array.from({ length: 16 }, (_, i) => home(`${i} ${head.slice(2)}`)),
        );
        expect(new Set(others).size).toBeGreaterThan(1);
      },
    ),
  );
});

test('marginal_cost sends prompts back to the replica whose cache holds their beginning', async () => {
  const profile = 'engine:8b-h100,speed=50';
  await withReplicas(3, { profile }, (replicas) =>
    withGateway(
      { config: configOf(replicas, {}, { policy: 'marginal_cost' }) },
      async (gateway) => {
        const documents = ['a', 'b', 'c', 'd'].map((letter) => `${letter} `.repeat(8000));
        const homes = documents.map(() => new Set<string>());
        let cached = 0;
        for (let round = 0; round < 4; round++) {
          for (const [i, document] of documents.entries()) {
            const body = chatBody(`${document} question ${round}`, { max_tokens: 4 });
            const answer = await post(gateway.url, body);
            expect(answer.status).toBe(200);
            homes[i]!.add(replicaOf(answer));
            const { usage } = JSON.parse(answer.text);
            if (round > 0)
              cached += usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens;
          }
        }
        expect(homes.map((seen) => seen.size)).toEqual([1, 1, 1, 1]);
        expect(cached / 12).toBeGreaterThan(0.9);
      },
    ),
  );
});

test('a higher priority goes first; a full queue gives up a lower one for it', async () => {
  await withBusyReplica(async (gateway, replica, ask) => {
    const first = ask('first');
    await replica.gate.arrivals(1);
    const normal = ask('normal');
    await eventually('one waits', async () => (await waiting(gateway)) === 1);
    const urgent = ask('urgent', { 'x-sluice-priority': '80' });
    await eventually('both wait', async () => (await waiting(gateway)) === 2);
    await releaseOneByOne(replica, 3);
    await Promise.all([first, normal, urgent]);
    expect(ask.order).toEqual(['first', 'urgent', 'normal']);
  });
});

test('a key that floods the queue does not make the others wait for it', async () => {
  await withBusyReplica(async (gateway, replica, ask) => {
    const flood = { authorization: 'Bearer flood' };
    const answers = [ask('first', flood)];
    await replica.gate.arrivals(1);
    for (let i = 0; i < 30; i++) answers.push(ask(`flood ${i}`, flood));
    await eventually('the flood waits', async () => (await waiting(gateway)) === 30);
    for (const name of ['calm 1', 'calm 2']) {
      answers.push(ask(name, { authorization: 'Bearer calm' }));
    }
    await eventually('everybody waits', async () => (await waiting(gateway)) === 32);
    await releaseOneByOne(replica, 33);
    await Promise.all(answers);
    const places = ['calm 1', 'calm 2'].map((name) => ask.order!.indexOf(name));
    expect(Math.max(...places)).toBeLessThanOrEqual(5);
  });
});

test('a first token that would miss the deadline is refused at once, with when to come back', async () => {
  await withReplicas(1, { hold: true }, async ([replica]) => {
    const slow = { ...row(replica!), max_in_flight: 1, prefill_us: 10_000 };
    await withGateway({ config: configOf([], {}, { replicas: [slow] }) }, async (gateway) => {
      const body = chatBody('word '.repeat(1000)); // some 1,250 tokens at 10 ms each
      const held = post(gateway.url, body);
      await replica!.gate.arrivals(1);
      const late = await post(gateway.url, body, { 'x-sluice-deadline-ms': '5000' });
      expect(late.status).toBe(429);
      expect(JSON.parse(late.text).error.code).toBe('deadline_unreachable');
      expect(Number(late.headers.get('retry-after-ms'))).toBeGreaterThan(5000);
      expect(sum([replica!.stats().started])).toBe(1);
      replica!.gate.release();
      expect((await held).status).toBe(200);
      await expectQuiet(gateway);
    });
  });
});
