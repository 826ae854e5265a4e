/** LoRA adapters that replicas load when requests ask for them, through a whole gateway. */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { replicaProcess } from '../support/replica.ts';
import {
  type Answer,
  chatBody,
  configOf,
  model,
  openStream,
  post,
  quickHealth,
  total,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';

type Lora = NonNullable<ConfigInput['models'][number]['lora']>;

const named = (...names: string[]) => names.map((name) => ({ name, path: `/adapters/${name}` }));
/** Replicas that answer 404 for what they have not loaded. */
const strict = (max: number, loadMs = 0) => ({ model, strictModel: true, lora: { max, loadMs } });

const ask = (gateway: GatewayProcess, name: string, text = 'x'): Promise<Answer> =>
  post(gateway.url, chatBody(text, { model: name, max_tokens: 2 }));

/** Paths of the calls that load and give up adapters, with the status of each. */
const calls = (replica: Replica): string[] =>
  replica
    .ledger()
    .filter(({ path }) => path.includes('lora_adapter'))
    .map(({ path, status }) => `${path.slice(path.lastIndexOf('/') + 1)} ${status}`);

const withLora = (
  replicas: readonly { readonly url: string }[],
  lora: Lora,
  use: (gateway: GatewayProcess) => Promise<void>,
  more: Omit<ConfigInput, 'models'> = {},
): Promise<void> => withGateway({ config: configOf(replicas, more, { lora }) }, use);

const adaptersOf = async (gateway: GatewayProcess): Promise<readonly string[][]> =>
  (await gateway.cluster()).replicas.map(({ adapters }) => [...adapters]);

describe.each(['vllm', 'sglang'] as const)('an engine as %s', (engine) => {
  test('loads an adapter for its first request, once', async () => {
    await withReplicas(2, strict(4, 150), async (replicas) => {
      await withLora(replicas, { engine, adapters: named('sql', 'legal') }, async (gateway) => {
        expect(await adaptersOf(gateway)).toEqual([[], []]);
        const [first, second, stream] = await Promise.all([
          ask(gateway, 'sql', 'first'),
          ask(gateway, 'sql', 'second'),
          openStream(gateway.url, chatBody('third', { model: 'sql', max_tokens: 2 })),
        ]);
        for (const answer of [first, second]) {
          expect(answer.status).toBe(200);
          // As the engine calls it: a strict one knows no other name.
          const name = engine === 'sglang' ? `${model}:sql` : 'sql';
          expect(JSON.parse(answer.text)).toMatchObject({ model: name });
          expect(answer.headers.get('x-sluice-attempts')).toBe('1');
        }
        expect((await stream.ended).text).toContain('[DONE]');
        expect((await ask(gateway, 'sql', 'fourth')).status).toBe(200);
        expect(replicas.flatMap(calls)).toEqual(['load_lora_adapter 200']);
        expect((await adaptersOf(gateway)).flat()).toEqual(['sql']);
        expect((await ask(gateway, model)).status).toBe(200);
        const families = await gateway.metrics();
        expect(total(families, 'sluice_lora_loads_total', { result: 'ok' })).toBe(1);
        expect(total(families, 'sluice_lora_evictions_total')).toBe(0);
        expect(total(families, 'sluice_replica_adapters')).toBe(1);
      });
    });
  });

  test('gives up the adapter that was used longest ago', async () => {
    await withReplicas(1, strict(2), async ([replica]) => {
      const lora: Lora = { engine, adapters: named('a', 'b', 'c'), max_loaded: 2 };
      await withLora([replica!], lora, async (gateway) => {
        for (const name of ['a', 'b', 'a', 'c']) {
          expect((await ask(gateway, name)).status, name).toBe(200);
        }
        expect((await adaptersOf(gateway))[0]?.sort()).toEqual(['a', 'c']);
        expect((await ask(gateway, 'b')).status).toBe(200);
        expect((await adaptersOf(gateway))[0]?.sort()).toEqual(['b', 'c']);
        expect(calls(replica!)).toEqual([
          ...['load_lora_adapter 200', 'load_lora_adapter 200'],
          ...['unload_lora_adapter 200', 'load_lora_adapter 200'],
          ...['unload_lora_adapter 200', 'load_lora_adapter 200'],
        ]);
      });
    });
  });
});

test('an adapter in use is given up after its last request has ended', async () => {
  const profile = 'tokens:ttft=10ms,itl=20ms';
  await withReplicas(1, { ...strict(1), profile }, async ([replica]) => {
    await withLora([replica!], { adapters: named('a', 'b'), max_loaded: 1 }, async (gateway) => {
      const stream = await openStream(
        gateway.url,
        chatBody('long', { model: 'a', max_tokens: 120 }),
      );
      await stream.until((text) => text.includes('data:'));
      expect((await ask(gateway, 'b')).status).toBe(200);
      const { text, cut } = await stream.ended;
      expect(cut).toBe(false);
      expect(text).toContain('[DONE]');
      const ledger = replica!.ledger();
      const long = ledger.find(({ path }) => path === '/v1/chat/completions');
      expect(long).toMatchObject({ end: 'served' });
      const unload = ledger.find(({ path }) => path === '/v1/unload_lora_adapter');
      expect(unload!.start).toBeGreaterThanOrEqual(long!.endAt);
    });
  });
});

test('an adapter whose requests take too long stays, and is not put off again', async () => {
  const profile = 'tokens:ttft=10ms,itl=40ms';
  await withReplicas(1, { ...strict(1), profile }, async ([replica]) => {
    const times = { load_timeout: '500ms', retry_after: '1h' };
    const lora: Lora = { adapters: named('a', 'b'), max_loaded: 1, ...times };
    await withLora([replica!], lora, async (gateway) => {
      const stream = await openStream(
        gateway.url,
        chatBody('long', { model: 'a', max_tokens: 120 }),
      );
      await stream.until((text) => text.includes('data:'));
      const other = ask(gateway, 'b');
      const quick = { interval: 10, timeout: 10_000 };
      await expect.poll(() => adaptersOf(gateway), quick).toEqual([[]]);
      await expect.poll(() => adaptersOf(gateway), quick).toEqual([['a']]);
      expect((await ask(gateway, 'a', 'meanwhile')).status).toBe(200);
      expect((await stream.ended).text).toContain('[DONE]');
      // Then its place is one of those that run nothing.
      expect((await other).status).toBe(200);
      const ledger = replica!.ledger();
      const long = ledger.find(({ path }) => path === '/v1/chat/completions');
      const unload = ledger.find(({ path }) => path === '/v1/unload_lora_adapter');
      expect(unload!.start).toBeGreaterThanOrEqual(long!.endAt);
    });
  });
});

test('many requests for more adapters than there are places are all served', async () => {
  await withReplicas(2, { ...strict(2, 20), profile: 'uniform:1ms-5ms' }, async (replicas) => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    await withLora(replicas, { adapters: named(...names), max_loaded: 2 }, async (gateway) => {
      const answers = await Promise.all(
        Array.from({ length: 90 }, async (_, i) => {
          const name = names[i % names.length] as string;
          return { name, ...(await ask(gateway, name, `question ${i}`)) };
        }),
      );
      for (const { name, status, text } of answers) {
        expect(status, text).toBe(200);
        expect(JSON.parse(text)).toMatchObject({ model: name });
      }
      // No replica was asked for what it had not.
      for (const replica of replicas) {
        const refused = replica.ledger().filter(({ status }) => status !== 200);
        expect(refused.map(({ path, status }) => `${path} ${status}`)).toEqual([]);
      }
    });
  });
});

test('what replicas have already is not loaded again', async () => {
  await withReplicas(2, strict(4), async (replicas) => {
    const load = { lora_name: 'sql', lora_path: '/adapters/sql' };
    await post(replicas[1]!.url, load, {}, '/v1/load_lora_adapter');
    await withLora(replicas, { adapters: named('sql') }, async (gateway) => {
      await expect.poll(() => adaptersOf(gateway)).toEqual([[], ['sql']]);
      const answer = await ask(gateway, 'sql');
      expect(answer.headers.get('x-sluice-replica')).toBe('r2');
      expect(replicas.map(calls)).toEqual([[], ['load_lora_adapter 200']]);
    });
  });
});

test('a replica that comes back without its adapters loads them anew', async () => {
  const options = { model, strictModel: true, maxLoras: 2 };
  const before = await replicaProcess(options);
  const { port } = before;
  let after: Awaited<ReturnType<typeof replicaProcess>> | undefined;
  try {
    const lora = { adapters: named('sql') };
    await withLora(
      [before],
      lora,
      async (gateway) => {
        expect((await ask(gateway, 'sql')).status).toBe(200);
        await before.kill();
        await untilReplica(gateway, 'r1', ({ healthy }) => !healthy);
        await expect.poll(() => adaptersOf(gateway)).toEqual([[]]);
        after = await replicaProcess({ ...options, port });
        await untilReplica(gateway, 'r1', ({ healthy }) => healthy);
        expect((await ask(gateway, 'sql', 'again')).status).toBe(200);
        const asked = (await after.ledger()).map(({ path }) => path);
        expect(asked.filter((path) => path.includes('lora_adapter'))).toHaveLength(1);
      },
      { health: quickHealth },
    );
  } finally {
    await before.close();
    await after?.close();
  }
});

test('an adapter that no replica can load is a 503 at once, or goes to the fallback', async () => {
  await withReplicas(3, strict(4), async ([one, two, other]) => {
    const lora = {
      adapters: [{ name: 'gone', path: '/missing/gone' }, ...named('sql')],
      retry_after: '1h',
    };
    const replicas = [
      { url: one!.url, name: 'r1' },
      { url: two!.url, name: 'r2' },
    ];
    const config = (fallbacks: string[]): ConfigInput => ({
      models: [
        { name: model, replicas, lora, fallbacks },
        { name: 'other', replicas: [{ url: other!.url, name: 'r3', served_model_name: model }] },
      ],
    });
    await withGateway({ config: config([]) }, async (gateway) => {
      const started = performance.now();
      // The first one has both of them try, the second is refused by what is known.
      for (const text of ['first', 'second']) {
        const refused = await ask(gateway, 'gone', text);
        expect(refused.status).toBe(503);
        expect(refused.text).toContain('no_replica');
        expect(refused.headers.get('retry-after')).not.toBeNull();
      }
      expect(performance.now() - started).toBeLessThan(10_000);
      for (const replica of [one!, two!]) expect(calls(replica)).toEqual(['load_lora_adapter 404']);
      expect((await ask(gateway, 'sql')).status).toBe(200);
      const families = await gateway.metrics();
      expect(total(families, 'sluice_lora_loads_total', { result: 'failed' })).toBe(2);
    });
    await withGateway({ config: config(['other']) }, async (gateway) => {
      const served = await ask(gateway, 'gone');
      expect(served.status).toBe(200);
      expect(served.headers.get('x-sluice-replica')).toBe('r3');
    });
  });
});

test('an adapter whose replica is full is loaded on another, in the place of an idle one', async () => {
  await withReplicas(2, { ...strict(1), hold: true }, async ([one, two]) => {
    const replicas = [
      { url: one!.url, name: 'r1', max_in_flight: 1 },
      { url: two!.url, name: 'r2', max_in_flight: 1 },
    ];
    for (const [replica, name] of [
      [one!, 'hot'],
      [two!, 'cold'],
    ] as const) {
      const load = { lora_name: name, lora_path: `/adapters/${name}` };
      const loaded = post(replica.url, load, {}, '/v1/load_lora_adapter');
      await replica.gate.arrivals(1);
      replica.gate.release();
      await loaded;
    }
    const lora: Lora = { adapters: named('hot', 'cold'), max_loaded: 1 };
    await withGateway({ config: configOf([], {}, { replicas, lora }) }, async (gateway) => {
      const first = ask(gateway, 'hot', 'first');
      await one!.gate.arrivals(1);
      const second = ask(gateway, 'hot', 'second');
      // The calls to the engine, then the request itself, are held there as well.
      const freed = (async () => {
        for (let calls = 0; calls < 3; calls++) {
          await two!.gate.arrivals(1);
          two!.gate.release(1);
        }
      })();
      expect((await second).headers.get('x-sluice-replica')).toBe('r2');
      await freed;
      one!.gate.release();
      expect((await first).headers.get('x-sluice-replica')).toBe('r1');
      expect(calls(two!)).toEqual([
        ...['load_lora_adapter 200', 'unload_lora_adapter 200', 'load_lora_adapter 200'],
      ]);
    });
  });
});

test('what somebody else has unloaded is found missing, and loaded again', async () => {
  await withReplicas(1, strict(2), async ([replica]) => {
    const health = { interval: '1s', timeout: '500ms' } as const;
    const use = async (gateway: GatewayProcess): Promise<void> => {
      expect((await ask(gateway, 'sql')).status).toBe(200);
      await post(replica!.url, { lora_name: 'sql' }, {}, '/v1/unload_lora_adapter');
      await expect.poll(() => adaptersOf(gateway), { timeout: 5000 }).toEqual([[]]);
      expect((await ask(gateway, 'sql', 'again')).status).toBe(200);
      expect(calls(replica!).filter((call) => call.startsWith('load'))).toHaveLength(2);
    };
    await withLora([replica!], { adapters: named('sql') }, use, { health });
  });
});

test('a load that hangs is given up, and another replica asked', async () => {
  await withReplicas(1, strict(2), async ([fit]) => {
    const slow = await replicaProcess({
      model,
      strictModel: true,
      maxLoras: 2,
      loraLoadTime: '1h',
    });
    try {
      const lora: Lora = { adapters: named('sql'), load_timeout: '1s' };
      // Of two idle ones the first is asked first.
      await withLora([slow, fit!], lora, async (gateway) => {
        const answer = await ask(gateway, 'sql');
        expect(answer.status, answer.text).toBe(200);
        expect(answer.headers.get('x-sluice-replica')).toBe('r2');
        const paths = (await slow.ledger()).map(({ path }) => path);
        expect(paths.filter((path) => path.includes('load_lora'))).toHaveLength(1);
      });
    } finally {
      await slow.close();
    }
  });
});

test('an engine that calls its model otherwise is asked for adapters of that name', async () => {
  const base = { model: 'base', strictModel: true, lora: { max: 2, loadMs: 0 } };
  await withReplicas(1, base, async ([replica]) => {
    const replicas = [{ url: replica!.url, name: 'r1', served_model_name: 'base' }];
    const lora: Lora = { engine: 'sglang', adapters: named('sql') };
    await withGateway({ config: configOf([], {}, { replicas, lora }) }, async (gateway) => {
      expect((await ask(gateway, 'sql')).status).toBe(200);
      const prompt = { model: 'sql', prompt: 'x', max_tokens: 1 };
      expect((await post(gateway.url, prompt, {}, '/v1/completions')).status).toBe(200);
      expect((await ask(gateway, model)).status).toBe(200);
    });
  });
});

test('during the hand-over of a reload the old replicas load what is asked for', async () => {
  await withReplicas(1, strict(2), async ([old]) => {
    const token = 'lora-admin';
    const lora: Lora = { adapters: named('sql', 'legal') };
    const more = { admin: { token }, health: quickHealth };
    const config = configOf([{ url: old!.url }], more, { lora });
    await withGateway({ config }, async (gateway) => {
      expect((await ask(gateway, 'sql')).status).toBe(200);
      // Nobody listens at the new address yet.
      gateway.writeConfig(configOf([{ url: 'http://127.0.0.1:9' }], more, { lora }));
      const headers = { authorization: `Bearer ${token}` };
      expect((await post(gateway.adminUrl, {}, headers, '/admin/reload')).status).toBe(200);
      const answer = await ask(gateway, 'legal');
      expect(answer.status, answer.text).toBe(200);
      expect(calls(old!)).toEqual(['load_lora_adapter 200', 'load_lora_adapter 200']);
    });
  });
});

test('a second name for the url of a replica that loads adapters is refused', async () => {
  await withReplicas(1, strict(2), async ([replica]) => {
    const token = 'lora-admin';
    const lora: Lora = { adapters: named('sql') };
    const config = configOf([replica!], { admin: { token } }, { lora });
    await withGateway({ config }, async (gateway) => {
      const body = { name: 'r2', url: replica!.url, model };
      const headers = { authorization: `Bearer ${token}` };
      const refused = await post(gateway.adminUrl, body, headers, '/admin/replicas');
      expect(refused.status).toBe(409);
      expect(refused.text).toContain('r1 has that url');
    });
  });
});
