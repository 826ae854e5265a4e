/**
 * File descriptors run out while the gateway serves, below its caps: something else in the process has
 * taken them. Requests are served or refused, no replica is blamed, and all is well once there are some.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { expectQuiet, type GatewayProcess, withGateway } from '../support/gateway.ts';
import { RawClient, rawPost } from '../support/raw-client.ts';
import { chatBody, chatPath, configOf, post, total, withReplicas } from '../support/scenario.ts';
import { call } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sluice-shortage-'));
afterAll(() => rmSync(folder, { recursive: true }));

const limit = 400;
const inFlight = 16;
/** Several probes of each replica, more than make a failing one unhealthy. */
const shortageMs = 1200;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const open = ({ pid }: GatewayProcess): number => readdirSync(`/proc/${pid}/fd`).length;

test.runIf(process.platform === 'linux').each([
  ['uws', 'localhost'],
  ['node', '127.0.0.1'],
] as const)('engine %s, replicas at %s', async (engine, host) => {
  const hog = join(folder, `hog-${engine}`);
  await withReplicas(2, {}, async (replicas) => {
    const rows = replicas.map(({ url }, i) => {
      return { url: url.replace('127.0.0.1', host), name: `r${i + 1}`, max_in_flight: inFlight };
    });
    const config = configOf(
      replicas,
      {
        listen: { engine, max_connections: 50 },
        health: { interval: '250ms', timeout: '250ms' },
        degrade: { descriptors: false }, // it would close connections, and there would be some again
      },
      { replicas: rows },
    );
    const options = {
      config,
      nodeFlags: ['--import', faults],
      env: { SLUICE_TEST_HOG_FILE: hog },
      wrapper: ['prlimit', `--nofile=${limit}:${limit}`],
    };
    await withGateway(options, async (gateway) => {
      const { port } = gateway;
      const clients = await Promise.all(Array.from({ length: 8 }, () => RawClient.connect(port)));
      const tags = '[[fault:hold-after=3]]';
      const stream = call(port, { nonce: 'held', tags, stream: true });
      await stream.until(({ tokens }) => tokens === 3);
      const before = open(gateway);
      writeFileSync(hog, '');
      await eventually('none is left', () => open(gateway) >= limit);
      const since = replicas.map((replica) => replica.stats().started);

      // Who is connected gets an answer: 200 where a connection to a replica was idle, else an error.
      const request = rawPost(chatPath, chatBody('x [[len=1]]'));
      for (const client of clients) await client.send(request);
      for (const client of clients) {
        const [answer] = (await client.responses(1)).responses;
        expect(answer?.complete).toBe(true);
        expect([200, 502, 503]).toContain(answer?.status);
      }
      await pause(shortageMs);
      expect(open(gateway), 'all the while').toBeGreaterThan(limit - 4);
      rmSync(hog);
      await eventually('they are back', () => open(gateway) < limit / 2);

      expect(total(await gateway.metrics(), 'sluice_replica_errors_total')).toBe(0);
      expect(gateway.output()).not.toContain('unhealthy');
      const { replicas: shown } = await gateway.cluster();
      expect(shown.every(({ healthy }) => healthy)).toBe(true);
      for (const { gate } of replicas) gate.release();
      expect((await stream.ended).end).toBe('done');
      for (const client of clients) await client.close();
      for (let i = 0; i < 20; i++) {
        expect((await post(gateway.url, chatBody('x [[len=1]]'))).status).toBe(200);
      }
      for (const [i, replica] of replicas.entries()) {
        expect(replica.stats().started).toBeGreaterThan(since[i]!);
      }
      await expectQuiet(gateway);
      await eventually('nothing stays open', () => open(gateway) <= before + 4);
    });
  });
});
