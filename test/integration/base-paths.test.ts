/**
 * Replicas that have their API under a path of their own, through whole gateways: requests, probes, scrapes,
 * replicas that come by hand, by a reload or by a flag, and traces.
 */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { tokensText } from '../../src/replica/tokens.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { type Mount, MountedReplicas } from '../support/mounted-replica.ts';
import { OtlpReceiver, spanKinds } from '../support/otlp-receiver.ts';
import {
  chatBody,
  chatPath,
  chatSeries,
  model,
  post,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const token = 'of-the-admin';

type Place = Omit<Mount, 'url'>;
type ReplicaInput = ConfigInput['models'][number]['replicas'][number];

/** Runs `use` with one server that has a replica at each of the places. */
const withMounted = (
  places: readonly Place[],
  use: (origin: string, server: MountedReplicas, replicas: readonly Replica[]) => Promise<void>,
): Promise<void> =>
  withReplicas(places.length, {}, async (replicas) => {
    const server = new MountedReplicas(
      places.map((place, i) => ({ ...place, url: replicas[i]!.url })),
    );
    try {
      await use(await server.listen(), server, replicas);
    } finally {
      await server.close();
    }
  });

const postTo = (gateway: GatewayProcess, path: string, body: object): Promise<Response> =>
  fetch(gateway.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

const groq = { api: '/openai/v1', root: '/openai' };
const gemini = { api: '/v1beta/openai', root: '/v1beta/openai' };
const zhipu = { api: '/api/paas/v4', root: '/api/paas' };

describe.each(testEngines)('on %s', (engine) => {
  test.each([groq, gemini, zhipu])('all that is asked goes below $api', async (place) => {
    const { api, root } = place;
    await withMounted([place], async (origin, server) => {
      const config: ConfigInput = {
        listen: { engine },
        engine_metrics: { interval: '200ms', timeout: '200ms' },
        models: [{ name: model, replicas: [{ url: `${origin + api}/`, name: 'r' }] }],
      };
      await withGateway({ config }, async (gateway) => {
        expect(server.asked[0]).toBe(`GET ${api}/models`);
        const answer = await post(gateway.url, chatBody('x', { max_tokens: 3 }));
        expect(answer.status).toBe(200);
        const stream = await postTo(gateway, chatPath, chatBody('y', { stream: true }));
        expect((await stream.text()).trimEnd()).toMatch(/data: \[DONE\]$/);
        // A query is the client's own.
        const queried = await postTo(gateway, `${chatPath}?a=/v1/`, chatBody('z'));
        expect(queried.status).toBe(200);
        await queried.text();
        expect((await postTo(gateway, '/tokenize', { model, prompt: 'x' })).status).toBe(200);
        const posts = server.asked.filter((line) => line.startsWith('POST'));
        expect(posts).toEqual([
          `POST ${api}/chat/completions`,
          `POST ${api}/chat/completions`,
          `POST ${api}/chat/completions?a=/v1/`,
          `POST ${root}/tokenize`,
        ]);
        await eventually('the report of the engine counts', async () => {
          return (await gateway.cluster()).replicas[0]?.engine !== null;
        });
        expect(server.asked).toContain(`GET ${root}/metrics`);
        const [row] = (await gateway.cluster()).replicas;
        expect(row).toMatchObject({ url: origin + api, healthy: true, errors: 0 });
      });
    });
  });

  test('two paths of one host are two replicas, which come by hand and by a reload', async () => {
    const places = ['a', 'b'].map((name) => ({ api: `/${name}/v1`, root: `/${name}` }));
    await withMounted(places, async (origin, _server, replicas) => {
      const config = (...list: ReplicaInput[]): ConfigInput => ({
        listen: { engine },
        admin: { token },
        models: [{ name: model, replicas: list }],
      });
      const [a, b] = ['a', 'b'].map((name) => ({ url: `${origin}/${name}/v1`, name }));
      await withGateway({ config: config(a!) }, async (gateway) => {
        const tell = (page: string, body?: object) =>
          adminPost(gateway.adminUrl, token, page, body);
        const added = await tell('replicas', { ...b, url: `${b!.url}/`, model });
        expect(added).toMatchObject({ status: 201, body: { healthy: true } });
        for (let i = 0; i < 16; i++) {
          const answer = await post(gateway.url, chatBody(`p${i}`, { max_tokens: 1 }));
          expect(answer.status).toBe(200);
        }
        for (const replica of replicas) expect(replica.stats().served).toBeGreaterThan(0);
        const wrong = await tell('replicas', { name: 'c', model, url: `${b!.url}?x=1` });
        expect(wrong.status).toBe(400);
        expect(JSON.stringify(wrong.body)).toContain('must not contain a query');
        // Another path under the same name is another replica: it takes the place of the first.
        const elsewhere = `${origin}/nowhere/v1`;
        gateway.writeConfig(config({ url: elsewhere, name: 'a' }, b!));
        expect(await tell('reload')).toMatchObject({
          body: { replaced: ['a'], added: [], removed: [] },
        });
        const rows = (await gateway.cluster()).replicas;
        expect(rows.find(({ url }) => url === elsewhere)).toMatchObject({
          ...{ name: 'a', healthy: false, reason: 'probe answered 404' },
        });
        await untilReplica(gateway, 'b', ({ healthy }) => healthy);
        const answer = await post(gateway.url, chatBody('x', { max_tokens: 1 }));
        expect(answer.headers.get('x-sluice-replica')).toBe('b');
      });
    });
  });

  test('spans have the path that was asked for', async () => {
    const receiver = await OtlpReceiver.listen();
    try {
      await withMounted([groq], async (origin) => {
        const config: ConfigInput = {
          listen: { engine },
          tracing: { endpoint: receiver.endpoint, sample: 1 },
          models: [{ name: model, replicas: [{ url: origin + groq.api }] }],
        };
        await withGateway({ config }, async (gateway) => {
          await post(gateway.url, chatBody('x', { max_tokens: 2 }));
          await eventually('the span is there', () =>
            receiver.spans.some(({ kind }) => kind === spanKinds.client),
          );
        });
        const span = receiver.spans.find(({ kind }) => kind === spanKinds.client);
        expect(span?.attributes).toMatchObject({
          'url.full': `${origin}${groq.api}/chat/completions`,
          'server.address': '127.0.0.1',
        });
        expect(Number(span?.attributes['server.port'])).toBe(Number(new URL(origin).port));
      });
    } finally {
      await receiver.close();
    }
  });
});

test('a base is given by a flag', async () => {
  await withMounted([zhipu], async (origin, server) => {
    const flags = ['--replica', `${origin + zhipu.api}/`, '--model', model];
    await withGateway({ flags }, async (gateway) => {
      const answer = await post(gateway.url, chatBody('x', { max_tokens: 2 }));
      expect(answer.text).toContain(JSON.stringify(tokensText(chatSeries('x'), 0, 2)));
      expect(server.asked).toContain(`POST ${zhipu.api}/chat/completions`);
    });
  });
});
