/**
 * Reloads that give splits other numbers, or take adapters from replicas, while keys are for some of them: by every
 * file a key may use what that says, and on the way from one to the next nothing that neither allows. Whole
 * gateways, both engines.
 */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { gatedHealth, withGate } from '../support/gate.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  type Answer,
  chatBody,
  post,
  withNamedReplicas,
  withReplicas,
} from '../support/scenario.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const token = 'of-the-admin';
const modelNames = ['a', 'b', 'c'] as const;
const splitNames = ['s0', 's1', 's2', 's3', 's4', 's5'] as const;
const rounds = 6;

type Split = NonNullable<ConfigInput['splits']>[number];
type TenantKey = NonNullable<NonNullable<ConfigInput['tenants']>[number]['keys']>[number];
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const split = (name: string, model: string): Split => ({ name, models: [{ model }] });
const reload = (gateway: GatewayProcess) => adminPost(gateway.adminUrl, token, 'reload');

const ask = (gateway: GatewayProcess, name: string, key: string): Promise<Answer> =>
  post(gateway.url, chatBody('x', { model: name, max_tokens: 1 }), bearer(key));

/** The model that served, or the status. */
async function servedBy(gateway: GatewayProcess, name: string, key: string): Promise<string> {
  const { status, headers } = await ask(gateway, name, key);
  return status === 200 ? (headers.get('x-sluice-model') ?? '') : String(status);
}

const configOver = (
  engine: (typeof testEngines)[number],
  replicas: readonly Replica[],
  more: Partial<ConfigInput>,
): ConfigInput => ({
  ...{ listen: { engine }, admin: { token } },
  ...more,
  models: replicas.map(({ url }, i) => ({
    name: modelNames[i]!,
    replicas: [{ url, name: `at-${i}` }],
  })),
});

/** Which keys there are, and of the names that each is for, those that may be in a file. */
const tenantOf = {
  wide: { models: undefined, key: undefined },
  listed: { models: ['s0', 's1', 's2', 'a'], key: undefined },
  narrow: { models: ['s0', 's1', 's2', 'a'], key: ['s1', 's4', 'a'] },
  own: { models: undefined, key: ['s5', 's3', 'b'] },
  stays: { models: undefined, key: ['stays'] },
} as const;
type Tenant = keyof typeof tenantOf;
const tenantNames = Object.keys(tenantOf) as Tenant[];

const isAllowed = (tenant: Tenant, name: string): boolean => {
  const { models, key } = tenantOf[tenant];
  return [models, key].every(
    (list) => list === undefined || (list as readonly string[]).includes(name),
  );
};

describe.each(testEngines)('on %s', (engine) => {
  test('by every file each key may use what that says, while one is used throughout', async () => {
    const random = createPrng(seed);
    const keys = Object.fromEntries(tenantNames.map((name) => [name, newKey()])) as Record<
      Tenant,
      string
    >;
    /** Some of the splits, in any order, over any model; one is in every file and stays as it is. */
    const drawSplits = (): Split[] => {
      const some = splitNames.filter(() => random.below(3) > 0);
      const drawn = some.map((name) => split(name, modelNames[random.below(3)]!));
      const all = [...drawn, split('stays', 'a')];
      for (let i = all.length - 1; i > 0; i--) {
        const k = random.below(i + 1);
        [all[i], all[k]] = [all[k]!, all[i]!];
      }
      return all;
    };
    await withNamedReplicas(['one', 'two', 'three'], async (replicas) => {
      const file = (splits: readonly Split[]): ConfigInput => {
        const known = new Set<string>([...splits.map(({ name }) => name), ...modelNames]);
        const listOf = (list: readonly string[] | undefined) =>
          list && { models: list.filter((name) => known.has(name)) };
        const tenants = tenantNames.map((name) => {
          const { models, key } = tenantOf[name];
          const own = { id: 'k', sha256: sha256Of(keys[name]), ...listOf(key) };
          return { name, ...listOf(models), keys: [own] };
        });
        return configOver(engine, replicas, { splits: [...splits], tenants });
      };
      let splits = drawSplits();
      await withGateway({ config: file(splits) }, async (gateway) => {
        const expectKeys = async (): Promise<void> => {
          const targets = new Map<string, string>(modelNames.map((name) => [name, name]));
          for (const { name, models } of splits) targets.set(name, models[0]!.model);
          for (const tenant of tenantNames) {
            const key = keys[tenant];
            for (const name of [...modelNames, ...splitNames, 'stays']) {
              const target = targets.get(name);
              const due = target === undefined ? '404' : isAllowed(tenant, name) ? target : '403';
              const what = `${tenant} asks for ${name} of ${JSON.stringify(splits)}, seed ${seed}`;
              expect(await servedBy(gateway, name, key), what).toBe(due);
            }
            const list = await fetch(`${gateway.url}/v1/models`, { headers: bearer(key) });
            const { data } = (await list.json()) as { data: { id: string }[] };
            const due = [...targets.keys()].filter((name) => isAllowed(tenant, name));
            expect(data.map(({ id }) => id).toSorted()).toEqual(due.toSorted());
          }
        };
        await expectKeys();
        let isOver = false;
        const seen = new Set<string>();
        const clients = ['stays', 's2'].map(async (name) => {
          while (!isOver) seen.add(`${name}: ${await servedBy(gateway, name, keys.stays)}`);
        });
        for (let round = 0; round < rounds; round++) {
          splits = drawSplits();
          gateway.writeConfig(file(splits));
          expect((await reload(gateway)).status).toBe(200);
          await expectKeys();
        }
        isOver = true;
        await Promise.all(clients);
        // Its own name was served as ever, and another one was not there or not its own.
        expect([...seen].filter((one) => !/^(stays: a|s2: 40[34])$/.test(one))).toEqual([]);
        expect(seen.has('stays: a')).toBe(true);
      });
    });
  }, 60_000);

  test('while a reload waits for a replica a key gets no name that is still of another model', async () => {
    const [old, fresh] = [newKey(), newKey()];
    const keyOf = (id: string, key: string, models: string[]) => ({
      id,
      sha256: sha256Of(key),
      models,
    });
    await withGate(async (gate) => {
      await withNamedReplicas(['one', 'two'], async (replicas) => {
        const before = configOver(engine, replicas, {
          health: gatedHealth,
          splits: [split('gone', 'a'), split('kept', 'a'), split('got', 'b'), split('same', 'b')],
          tenants: [{ name: 't', keys: [keyOf('old', old, ['gone', 'kept'])] }],
        });
        await withGateway({ config: before }, async (gateway) => {
          expect(await servedBy(gateway, 'got', old)).toBe('403');
          const after = configOver(engine, replicas, {
            health: gatedHealth,
            // `got` is of the model that the key is to have; until then it is of the one it must not.
            splits: [split('same', 'b'), split('got', 'a'), split('kept', 'b')],
            tenants: [
              {
                name: 't',
                keys: [
                  keyOf('old', old, ['kept', 'got', 'same']),
                  keyOf('fresh', fresh, ['got', 'same']),
                ],
              },
            ],
          });
          after.models[0]!.replicas.push({ url: gate.url, name: 'slow' });
          gateway.writeConfig(after);
          const done = reload(gateway);
          await gate.asked;
          // The names are those of the first file, and the keys those of the second.
          expect(await servedBy(gateway, 'kept', old)).toBe('a');
          for (const key of [old, fresh]) expect(await servedBy(gateway, 'same', key)).toBe('b');
          for (const [name, key] of [
            ['got', old],
            ['gone', old],
            ['got', fresh],
            ['kept', fresh],
          ] as const) {
            expect(await servedBy(gateway, name, key), name).toBe('403');
          }
          gate.release();
          expect((await done).status).toBe(200);
          expect((await adminPost(gateway.adminUrl, token, 'replicas/slow/drain')).status).toBe(
            200,
          );
          for (const [name, key, due] of [
            ['got', old, 'a'],
            ['kept', old, 'b'],
            ['gone', old, '404'],
            ['got', fresh, 'a'],
            ['kept', fresh, '403'],
          ] as const) {
            expect(await servedBy(gateway, name, key), name).toBe(due);
          }
        });
      });
    });
  });

  test('a reload that takes an adapter from a replica gives a key one that is loaded when asked for', async () => {
    const fresh = newKey();
    const engineOf = { model: 'a', strictModel: true, lora: { max: 1, loadMs: 0 } };
    await withReplicas(1, engineOf, async ([replica]) => {
      const file = (adapters: string[], keys: TenantKey[]): ConfigInput => ({
        ...{ listen: { engine }, admin: { token }, tenants: [{ name: 't', keys }] },
        models: [
          {
            name: 'a',
            lora: { adapters: [{ name: 'sql', path: '/adapters/sql' }] },
            replicas: [{ url: replica!.url, name: 'at-0', adapters }],
          },
        ],
      });
      await withGateway({ config: file(['sql'], []) }, async (gateway) => {
        const key = { id: 'k', sha256: sha256Of(fresh), models: ['sql'] };
        gateway.writeConfig(file([], [key]));
        expect((await reload(gateway)).status).toBe(200);
        expect((await ask(gateway, 'sql', fresh)).status).toBe(200);
      });
    });
  });

  test('a key made by hand may use an adapter that only a replica added by hand has', async () => {
    await withNamedReplicas(['one', 'two'], async (replicas) => {
      const file = (adapters: string[]): ConfigInput => ({
        ...{ listen: { engine }, admin: { token }, tenants: [{ name: 't' }] },
        models: [{ name: 'a', replicas: [{ url: replicas[0]!.url, name: 'at-0', adapters }] }],
      });
      await withGateway({ config: file(['sql']) }, async (gateway) => {
        const admin = (page: string, body: object) =>
          adminPost(gateway.adminUrl, token, page, body);
        gateway.writeConfig(file([]));
        expect((await reload(gateway)).status).toBe(200);
        const twin = { name: 'at-1', model: 'a', url: replicas[1]!.url, adapters: ['sql'] };
        expect((await admin('replicas', twin)).status).toBe(201);
        const made = await admin('tenants/t/keys', { id: 'k', models: ['sql'] });
        const { key } = made.body as { key: string };
        expect((await ask(gateway, 'sql', key)).status).toBe(200);
      });
    });
  });
});
