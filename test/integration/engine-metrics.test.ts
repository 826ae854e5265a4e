/** What engines report of themselves, through a whole gateway: seen, weighed, and worth nothing when broken. */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import {
  chatBody,
  configOf,
  openStream,
  post,
  quickHealth,
  total,
  withReplicas,
} from '../support/scenario.ts';

const engineMetrics = { interval: '200ms', timeout: '200ms' } as const;
const policy = 'least_in_flight';
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Who answers eight requests, one after the other. */
async function answerers(gateway: GatewayProcess): Promise<Set<string>> {
  const names = new Set<string>();
  for (const i of range(8)) {
    const answer = await post(gateway.url, chatBody(`short ${i}`, { max_tokens: 1 }));
    expect(answer.status).toBe(200);
    names.add(answer.headers.get('x-sluice-replica') ?? '');
  }
  return names;
}

const r1 = async (gateway: GatewayProcess) => (await gateway.cluster()).replicas[0]!.engine;

test('a replica that another client loads is spared, and used again when that one has left', async () => {
  await withReplicas(2, { profile: 'tokens:ttft=1ms,itl=200ms' }, async (replicas) => {
    const config = configOf(replicas, { engine_metrics: engineMetrics }, { policy });
    await withGateway({ config }, async (gateway) => {
      await expect
        .poll(() => r1(gateway))
        .toMatchObject({ running: 0, kv_capacity_tokens: 448_000 });
      expect(await answerers(gateway)).toEqual(new Set(['r1', 'r2']));
      const direct = range(20).map((i) =>
        openStream(replicas[0]!.url, chatBody(`direct ${i}`, { max_tokens: 25 })),
      );
      await Promise.all(direct);
      await expect.poll(() => r1(gateway)).toMatchObject({ running: 20 });
      await expect.poll(() => answerers(gateway), { timeout: 5000 }).toEqual(new Set(['r2']));
      const families = await gateway.metrics();
      expect(total(families, 'sluice_replica_engine_running', { replica: 'r1' })).toBe(20);
      expect(total(families, 'sluice_replica_engine_running', { replica: 'r2' })).toBeLessThan(2);
      expect(total(families, 'sluice_replica_engine_waiting', { replica: 'r1' })).toBe(0);
      expect(total(families, 'sluice_replica_in_flight', { replica: 'r1' })).toBe(0);
      for (const stream of await Promise.all(direct)) expect((await stream.ended).cut).toBe(false);
      await expect
        .poll(() => answerers(gateway), { timeout: 10_000 })
        .toEqual(new Set(['r1', 'r2']));
    });
  });
});

test('what the gateway itself sends is not taken for the load of others', async () => {
  await withReplicas(2, { profile: 'tokens:ttft=1ms,itl=100ms' }, async (replicas) => {
    const config = configOf(replicas, { engine_metrics: engineMetrics }, { policy });
    await withGateway({ config }, async (gateway) => {
      await expect.poll(() => r1(gateway)).not.toBeNull();
      const streams = await Promise.all(
        range(20).map((i) => openStream(gateway.url, chatBody(`own ${i}`, { max_tokens: 30 }))),
      );
      await expect.poll(() => r1(gateway)).toMatchObject({ running: 10 });
      const more = await Promise.all(
        range(10).map((i) => openStream(gateway.url, chatBody(`more ${i}`, { max_tokens: 2 }))),
      );
      const names = more.map(({ headers }) => headers.get('x-sluice-replica'));
      expect(names.filter((name) => name === 'r1')).toHaveLength(5);
      for (const stream of [...streams, ...more]) expect((await stream.ended).cut).toBe(false);
    });
  });
});

/** An engine that answers everything well but its metrics page, which the test decides. */
async function oddEngine(use: (url: string, odd: OddEngine) => Promise<void>): Promise<void> {
  const odd: OddEngine = { answer: (response) => void response.end(), keys: new Set() };
  const server = createServer((request, response) => {
    if (request.url === '/metrics') {
      odd.keys.add(request.headers.authorization);
      odd.answer(response);
      return;
    }
    request.resume();
    response.setHeader('content-type', 'application/json');
    const choice = {
      index: 0,
      finish_reason: 'stop',
      message: { role: 'assistant', content: 'x' },
    };
    response.end(JSON.stringify({ object: 'chat.completion', choices: [choice] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, odd);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

interface OddEngine {
  answer: (response: ServerResponse) => void;
  readonly keys: Set<string | undefined>;
}

const brokenPages: readonly (readonly [string, (response: ServerResponse) => void])[] = [
  ['none of them', (response) => void response.end('<html>vllm:num_requests_running 5</html>')],
  ['not found', (response) => void response.writeHead(404).end('vllm:num_requests_running 50\n')],
  ['never answered', () => {}],
  ['never ended', (response) => void response.write('vllm:num_requests_running 50\n')],
  ['cut', (response) => void response.write('vllm:num', () => response.destroy())],
  ['endless', (response) => void response.end('vllm:num_requests_running 50\n'.repeat(50_000))],
];

test('a page that is missing or broken changes nothing, and is said once', async () => {
  await withReplicas(1, {}, async ([sound]) => {
    await oddEngine(async (url, odd) => {
      const replicas = [
        { url, name: 'r1', api_key: 'scrape-key' },
        { url: sound!.url, name: 'r2' },
      ];
      const more = { engine_metrics: engineMetrics, health: quickHealth };
      await withGateway({ config: configOf([], more, { policy, replicas }) }, async (gateway) => {
        for (const [name, answer] of brokenPages) {
          let asked = 0;
          odd.answer = (response) => {
            asked++;
            answer(response);
          };
          await expect.poll(() => asked, { message: name }).toBeGreaterThanOrEqual(3);
          expect(await r1(gateway), name).toBeNull();
          expect(await answerers(gateway), name).toEqual(new Set(['r1', 'r2']));
        }
        expect(odd.keys).toEqual(new Set(['Bearer scrape-key']));
        expect(gateway.output().split('engine does not report its load')).toHaveLength(2);
        expect(gateway.output()).not.toContain('scrape-key');
        const samples = (await gateway.metrics()).get('sluice_replica_engine_running')!.samples;
        expect([...samples.keys()].join()).not.toContain('r1');
        odd.answer = (response) => void response.end('vllm:num_requests_running 50\n');
        await expect.poll(() => answerers(gateway), { timeout: 5000 }).toEqual(new Set(['r2']));
        // The page goes away: what it said last counts for a while and is then forgotten.
        odd.answer = (response) => void response.destroy();
        await expect
          .poll(() => answerers(gateway), { timeout: 5000 })
          .toEqual(new Set(['r1', 'r2']));
        await expect.poll(() => r1(gateway)).toBeNull();
        expect((await gateway.cluster()).replicas[0]?.healthy).toBe(true);
      });
    });
  });
});

test('without the section nobody is asked', async () => {
  await oddEngine(async (url, odd) => {
    const config = configOf([{ url }], { health: quickHealth });
    await withGateway({ config }, async (gateway) => {
      for (const _ of range(3)) expect(await answerers(gateway)).toEqual(new Set(['r1']));
      expect(odd.keys.size).toBe(0);
      expect(await r1(gateway)).toBeNull();
    });
  });
});
