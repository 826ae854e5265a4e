/** LoRA adapters as names of models, through a whole gateway. */
import { expect, test } from 'vitest';
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
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

const ask = (gateway: GatewayProcess, name: string, text = 'x'): Promise<Answer> =>
  post(gateway.url, chatBody(text, { model: name, max_tokens: 1 }));

async function answerers(gateway: GatewayProcess, name: string): Promise<Set<string | null>> {
  const names = new Set<string | null>();
  for (const i of range(8)) {
    const answer = await ask(gateway, name, `question ${i}`);
    expect(answer.status).toBe(200);
    // The replica is asked for the adapter; of an alias it need not know.
    expect(JSON.parse(answer.text)).toMatchObject({ model: name === 'gpt' ? model : name });
    names.add(answer.headers.get('x-sluice-replica'));
  }
  return names;
}

test('requests for an adapter go where it is loaded, those for the model anywhere', async () => {
  await withReplicas(3, {}, async (urls) => {
    const [r1, r2, r3] = urls.map(({ url }, i) => ({ url, name: `r${i + 1}` }));
    const replicas = [
      { ...r1!, adapters: ['sql', 'legal'] },
      { ...r2!, adapters: ['sql'] },
      { ...r3! },
    ];
    const ofModel = { replicas, aliases: ['gpt'], policy: 'round_robin' as const };
    await withGateway({ config: configOf([], {}, ofModel) }, async (gateway) => {
      expect(await answerers(gateway, 'sql')).toEqual(new Set(['r1', 'r2']));
      expect(await answerers(gateway, 'legal')).toEqual(new Set(['r1']));
      for (const name of [model, 'gpt']) {
        expect(await answerers(gateway, name)).toEqual(new Set(['r1', 'r2', 'r3']));
      }
      const unknown = await ask(gateway, 'sqlx');
      expect(unknown.status).toBe(404);
      expect(unknown.text).toContain('model_not_found');
      const get = async (path: string): Promise<unknown> =>
        (await fetch(gateway.url + path)).json();
      const base = { object: 'model', created: 0, owned_by: 'sluice' };
      expect(await get('/v1/models')).toEqual({
        object: 'list',
        data: [
          { id: model, ...base },
          { id: 'gpt', ...base },
          { id: 'sql', ...base, parent: model },
          { id: 'legal', ...base, parent: model },
        ],
      });
      expect(await get('/v1/models/legal')).toEqual({ id: 'legal', ...base, parent: model });
      const { replicas: seen } = await gateway.cluster();
      expect(seen.map(({ adapters }) => adapters)).toEqual([['sql', 'legal'], ['sql'], []]);
    });
  });
});

test('an adapter whose replicas are all down is answered 503 at once; others are served', async () => {
  await withReplicas(1, {}, async ([steady]) => {
    const mortal = await replicaProcess({});
    try {
      const replicas = [
        { url: mortal.url, name: 'r1', adapters: ['sql'] },
        { url: steady!.url, name: 'r2', adapters: ['legal'] },
      ];
      const config = configOf([], { health: quickHealth }, { replicas });
      await withGateway({ config }, async (gateway) => {
        expect((await ask(gateway, 'sql')).status).toBe(200);
        await mortal.kill();
        await untilReplica(gateway, 'r1', ({ healthy }) => !healthy);
        const refused = await ask(gateway, 'sql');
        expect(refused.status).toBe(503);
        expect(refused.text).toContain('no_replica');
        expect(await answerers(gateway, 'legal')).toEqual(new Set(['r2']));
        expect(await answerers(gateway, model)).toEqual(new Set(['r2']));
        expect((await gateway.ready()).status).toBe(200);
      });
    } finally {
      await mortal.close();
    }
  });
});

test('who waits for an adapter keeps nobody waiting who does not need it', async () => {
  await withReplicas(2, { hold: true }, async ([loaded, plain]) => {
    const replicas = [
      { url: loaded!.url, name: 'r1', adapters: ['sql'], max_in_flight: 1 },
      { url: plain!.url, name: 'r2', max_in_flight: 8 },
    ];
    await withGateway({ config: configOf([], {}, { replicas }) }, async (gateway) => {
      const first = ask(gateway, 'sql', 'first');
      await loaded!.gate.arrivals(1);
      const second = ask(gateway, 'sql', 'second');
      await expect.poll(async () => (await gateway.cluster()).queue_depth).toBe(1);
      const others = range(3).map((i) => ask(gateway, model, `other ${i}`));
      await plain!.gate.arrivals(3);
      plain!.gate.release();
      for (const answer of await Promise.all(others)) {
        expect(answer.headers.get('x-sluice-replica')).toBe('r2');
      }
      expect((await gateway.cluster()).queue_depth).toBe(1);
      loaded!.gate.release();
      await loaded!.gate.arrivals(1);
      loaded!.gate.release();
      for (const answer of await Promise.all([first, second])) {
        expect(answer.status).toBe(200);
        expect(answer.headers.get('x-sluice-replica')).toBe('r1');
      }
    });
  });
});

test('the admin port adds replicas for adapters the model has, and no others', async () => {
  await withReplicas(2, {}, async ([first, second]) => {
    const token = 'adapter-admin';
    const replicas = [{ url: first!.url, name: 'r1', adapters: ['sql'] }];
    const config = configOf([], { admin: { token } }, { replicas });
    await withGateway({ config }, async (gateway) => {
      const add = (name: string, adapters: string[]): Promise<Answer> => {
        const body = { name, url: second!.url, model, adapters };
        return post(
          gateway.adminUrl,
          body,
          { authorization: `Bearer ${token}` },
          '/admin/replicas',
        );
      };
      const refused = await add('r2', ['sql', 'poetry']);
      expect(refused.status).toBe(409);
      expect(refused.text).toContain('poetry');
      expect((await add('r2', ['sql'])).status).toBe(201);
      await expect
        .poll(() => answerers(gateway, 'sql'), { timeout: 5000 })
        .toEqual(new Set(['r1', 'r2']));
      // Streams find their adapter as whole answers do.
      const stream = await openStream(gateway.url, chatBody('s', { model: 'sql', max_tokens: 2 }));
      expect((await stream.ended).text).toContain('[DONE]');
    });
  });
});
