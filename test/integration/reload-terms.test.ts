/**
 * What a reload changes of splits and of the terms of models, through whole gateways under traffic: weights,
 * names, fallbacks, cascades and prices, while requests that are under way keep what they came with.
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  type Answer,
  chatBody,
  chatPath,
  openStream,
  post,
  sum,
  withNamedReplicas,
} from '../support/scenario.ts';
import { dieAt, faultEnv } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

const token = 'of-the-admin';
type Models = ConfigInput['models'];
type Terms = Partial<Models[number]>;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe.each(testEngines)('on %s', (engine) => {
  /** Models a, b and c over a replica each; `of` says the terms of a. */
  const configOver = (
    replicas: readonly Replica[],
    of: Terms = {},
    more: Partial<ConfigInput> = {},
  ): ConfigInput => ({
    listen: { engine },
    admin: { token },
    log: { level: 'info' },
    ...more,
    models: replicas.map(({ url }, i) => {
      const name = 'abc'[i] as string;
      return { name, replicas: [{ url, name: `at-${name}` }], ...(i === 0 && of) };
    }),
  });

  const withModels = (
    of: Terms,
    more: Partial<ConfigInput>,
    use: (
      gateway: GatewayProcess,
      /** Writes the file; the rest of it is as before. */
      write: (of: Terms, more?: Partial<ConfigInput>) => void,
      replicas: readonly Replica[],
    ) => Promise<void>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> =>
    withNamedReplicas(['one', 'two', 'three'], (replicas) =>
      withGateway({ config: configOver(replicas, of, more), env }, (gateway) =>
        use(
          gateway,
          (terms, change = {}) =>
            gateway.writeConfig(configOver(replicas, terms, { ...more, ...change })),
          replicas,
        ),
      ),
    );

  const reload = (gateway: GatewayProcess) => adminPost(gateway.adminUrl, token, 'reload');

  const ask = (
    gateway: GatewayProcess,
    name: string,
    prompt = 'x',
    headers = {},
  ): Promise<Answer> =>
    post(gateway.url, chatBody(prompt, { model: name, max_tokens: 1 }), headers);

  const serverOf = ({ status, headers }: Answer): string => {
    expect(status).toBe(200);
    return headers.get('x-sluice-model') ?? '';
  };

  const chat = (a: number, b: number): ConfigInput['splits'] => [
    {
      name: 'chat',
      models: [
        { model: 'a', weight: a },
        { model: 'b', weight: b },
      ],
    },
  ];

  test('weights go from 100/0 to 0/100 by SIGHUP under traffic, and nothing is lost', async () => {
    await withModels({}, { splits: chat(100, 0) }, async (gateway, write, replicas) => {
      const order: string[] = [];
      let isOver = false;
      const clients = range(8).map(async () => {
        while (!isOver) order.push(serverOf(await ask(gateway, 'chat')));
      });
      // This one is under way when the weights change, and is served to its end by whom it came to.
      const held = await openStream(
        gateway.url,
        chatBody('y [[len=20]] [[fault:hold-after=3]]', { model: 'chat', max_tokens: 20 }),
      );
      await held.until((text) => text.includes('data: '));
      await eventually('a has served many', () => order.length > 50);
      expect(new Set(order)).toEqual(new Set(['a']));
      write({}, { splits: chat(0, 100) });
      gateway.kill('SIGHUP');
      await gateway.said('config reloaded');
      const [from, under] = [order.length, 8];
      await eventually('b has served many', () => order.length > from + 100);
      isOver = true;
      await Promise.all(clients);
      expect(new Set(order.slice(from + under))).toEqual(new Set(['b']));
      replicas[0]!.gate.release();
      expect(held.headers.get('x-sluice-model')).toBe('a');
      await held.ended;
      expect(held.text()).toMatch(/data: \[DONE\]\s*$/);
      const stats = replicas.map((replica) => replica.stats());
      expect(sum(stats.map(({ served }) => served))).toBe(order.length + 1);
      for (const of of stats) expect(of).toMatchObject({ ids_repeated: 0, failed: 0, aborted: 0 });
    });
  });

  test('sessions move only across the border that a weight moves', async () => {
    const three = (a: number, b: number, c: number): ConfigInput['splits'] => [
      {
        name: 'chat',
        models: [
          { model: 'a', weight: a },
          { model: 'b', weight: b },
          { model: 'c', weight: c },
        ],
      },
    ];
    await withModels({}, { splits: three(60, 30, 10) }, async (gateway, write) => {
      const serversOf = async (): Promise<string[]> => {
        const servers: string[] = [];
        for (const i of range(60)) {
          servers.push(serverOf(await ask(gateway, 'chat', 'x', { 'x-session-id': `s${i}` })));
        }
        return servers;
      };
      const before = await serversOf();
      expect(new Set(before)).toEqual(new Set(['a', 'b', 'c']));
      write({}, { splits: three(30, 60, 10) });
      expect(await reload(gateway)).toMatchObject({
        status: 200,
        body: { changed: ['splits.0.models.0.weight', 'splits.0.models.1.weight'] },
      });
      const after = await serversOf();
      const moves = new Set(before.map((name, i) => name + after[i]).filter((m) => m[0] !== m[1]));
      expect(moves).toEqual(new Set(['ab']));
    });
  });

  test('splits and aliases come and go, and keys are for the names there are', async () => {
    const key = newKey();
    const tenant = (...models: string[]): ConfigInput['tenants'] => [
      { name: 't', models, keys: [{ id: 'k', sha256: sha256Of(key) }] },
    ];
    const split = (name: string, model: string) => ({ name, models: [{ model }] });
    const splits = [split('first', 'a'), split('second', 'b')];
    await withModels({}, { splits, tenants: tenant('second') }, async (gateway, write) => {
      const headers = { authorization: `Bearer ${key}` };
      const statusOf = async (name: string) => (await ask(gateway, name, 'x', headers)).status;
      expect(await statusOf('second')).toBe(200);
      expect(await statusOf('first')).toBe(403);
      // The numbers of all that is left are others now.
      write({ aliases: ['other'] }, { splits: [splits[1]!], tenants: tenant('second') });
      expect((await reload(gateway)).status).toBe(200);
      expect(serverOf(await ask(gateway, 'second', 'x', headers))).toBe('b');
      expect(await statusOf('first')).toBe(404);
      expect(await statusOf('other')).toBe(403);
      const third = [split('third', 'c'), ...splits];
      write({ aliases: ['other'] }, { splits: third, tenants: tenant('third', 'other') });
      expect((await reload(gateway)).status).toBe(200);
      expect(serverOf(await ask(gateway, 'third', 'x', headers))).toBe('c');
      expect(serverOf(await ask(gateway, 'other', 'x', headers))).toBe('a');
      for (const name of ['first', 'second']) expect(await statusOf(name)).toBe(403);
      const list = await fetch(`${gateway.url}/v1/models`, { headers });
      const { data } = (await list.json()) as { data: { id: string }[] };
      expect(data.map(({ id }) => id)).toEqual(['a', 'other', 'third']);
    });
  });

  test('a request whose body comes after the reload goes by the file its key was looked up in', async () => {
    const key = newKey();
    const tenants = [{ name: 't', models: ['open'], keys: [{ id: 'k', sha256: sha256Of(key) }] }];
    const split = (name: string, model: string) => ({ name, models: [{ model }] });
    const open = split('open', 'a');
    await withModels({}, { splits: [open], tenants }, async (gateway, write) => {
      const begin = (name: string) => {
        const body = JSON.stringify(chatBody('x', { model: name, max_tokens: 1 }));
        const headers = {
          authorization: `Bearer ${key}`,
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
        };
        const sent = request(gateway.url + chatPath, { method: 'POST', headers });
        sent.write(body.slice(0, 10));
        return {
          finish: async (): Promise<number> => {
            sent.end(body.slice(10));
            const [answer] = (await once(sent, 'response')) as [IncomingMessage];
            answer.resume();
            await once(answer, 'end');
            return answer.statusCode ?? 0;
          },
        };
      };
      const [forOpen, forClosed] = [begin('open'), begin('closed')];
      await eventually('both heads are read', async () => {
        return (await gateway.slots()).rows.length === 2;
      });
      // In the new file the number of the one is that of the other.
      write({}, { splits: [split('closed', 'b'), open] });
      expect((await reload(gateway)).status).toBe(200);
      expect(await forOpen.finish()).toBe(200);
      expect(await forClosed.finish()).toBe(404);
      const headers = { authorization: `Bearer ${key}` };
      expect((await ask(gateway, 'closed', 'x', headers)).status).toBe(403);
      expect(serverOf(await ask(gateway, 'open', 'x', headers))).toBe('a');
    });
  });

  test('fallbacks, those for long prompts and the cascade change', async () => {
    await withModels({ fallbacks: ['b'] }, {}, async (gateway, write) => {
      const long = 'x [[fault@one:too-long=vllm]]';
      const stop = await adminPost(gateway.adminUrl, token, 'replicas/at-a/drain');
      expect(stop.status).toBe(200);
      expect(serverOf(await ask(gateway, 'a'))).toBe('b');
      write({ fallbacks: ['c', 'b'] });
      expect(await reload(gateway)).toMatchObject({
        body: { changed: ['models.0.fallbacks.0', 'models.0.fallbacks.1'] },
      });
      expect(serverOf(await ask(gateway, 'a'))).toBe('c');
      write({});
      expect((await reload(gateway)).status).toBe(200);
      expect((await ask(gateway, 'a')).status).toBe(503);
      expect((await adminPost(gateway.adminUrl, token, 'replicas/at-a/undrain')).status).toBe(200);
      await eventually('a serves again', async () => (await ask(gateway, 'a')).status === 200);
      expect((await ask(gateway, 'a', long)).status).toBe(400);
      write({ context_window_fallbacks: ['c'], cascade: { model: 'b', prompt_bytes: '2KiB' } });
      expect((await reload(gateway)).status).toBe(200);
      expect((await ask(gateway, 'a', long)).headers.get('x-sluice-model')).toBe('c');
      expect(serverOf(await ask(gateway, 'a', 'y'.repeat(3000)))).toBe('b');
      write({ cascade: { model: 'b', prompt_bytes: '8KiB' } });
      expect((await reload(gateway)).status).toBe(200);
      expect(serverOf(await ask(gateway, 'a', 'y'.repeat(3000)))).toBe('a');
    });
  });

  test('threads that are started again go by the file that was reloaded', async () => {
    const use = async (gateway: GatewayProcess, write: (of: Terms) => void): Promise<void> => {
      write({ fallbacks: ['b'], context_window_fallbacks: ['c'] });
      expect((await reload(gateway)).status).toBe(200);
      const request = () => ask(gateway, 'b');
      await dieAt(gateway, ['scheduler', 'scheduler', 'popped'], request, { token });
      await dieAt(gateway, ['forwarder-0', 'forwarder', 'sent'], request, { token });
      const long = await ask(gateway, 'a', 'x [[fault@one:too-long=vllm]]');
      expect(serverOf(long)).toBe('c');
      expect(serverOf(await ask(gateway, 'a', 'x [[fault@one:status=500]]'))).toBe('b');
    };
    await withModels({}, {}, use, faultEnv);
  });

  test('a price shows in the events of requests that come after it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-price-'));
    const file = join(folder, 'usage.ndjson');
    try {
      const priced = (output: number): Terms => ({ price: { input: 0, output } });
      await withModels(priced(1_000_000), { usage: { file } }, async (gateway, write, replicas) => {
        await ask(gateway, 'a');
        const held = await openStream(
          gateway.url,
          chatBody('y [[len=20]] [[fault:hold-after=3]]', { model: 'a', max_tokens: 20 }),
          { 'x-request-id': 'held' },
        );
        await held.until((text) => text.includes('data: '));
        write(priced(3_000_000));
        expect(await reload(gateway)).toMatchObject({
          body: { changed: ['models.0.price.output'] },
        });
        await ask(gateway, 'a');
        replicas[0]!.gate.release();
        await held.ended;
        await gateway.stop();
        const events = readFileSync(file, 'utf8').trim().split('\n');
        const costs = events.map((line) => {
          const { req_id, cost, output_tokens } = JSON.parse(line);
          return [req_id === 'held', cost / output_tokens];
        });
        expect(costs.filter(([isHeld]) => !isHeld)).toEqual([
          [false, 1],
          [false, 3],
        ]);
        expect(costs.filter(([isHeld]) => isHeld)).toEqual([[true, 1]]);
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a file that is wrong, or asks for a restart, changes nothing', async () => {
    await withModels({}, { splits: chat(1, 0) }, async (gateway, write) => {
      write({ fallbacks: ['nobody'] }, { splits: chat(0, 1) });
      const wrong = await reload(gateway);
      expect(wrong.status).toBe(400);
      expect(JSON.stringify(wrong.body)).toContain('is no model, alias or adapter');
      expect(serverOf(await ask(gateway, 'chat'))).toBe('a');
      write({ policy: 'random' }, { splits: chat(0, 1) });
      const refused = await reload(gateway);
      expect(refused.status).toBe(409);
      expect(JSON.stringify(refused.body)).toContain('these keys need a restart: models.0.policy');
      expect(serverOf(await ask(gateway, 'chat'))).toBe('a');
      write({}, { splits: chat(0, 1) });
      expect((await reload(gateway)).status).toBe(200);
      expect(serverOf(await ask(gateway, 'chat'))).toBe('b');
    });
  });
});
