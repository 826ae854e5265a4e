/** SIGUSR2: another process beside the one that serves, on the same port, takes over from it. */
import http from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { KeptClient, Knocking } from '../support/knocking.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  post,
  quickHealth,
  total,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';
import {
  alone,
  expectWhole,
  heldPrompt,
  heldStreams,
  serves,
  startMs,
  supervised,
  token,
} from '../support/take-over.ts';
import { eventually } from '../support/until.ts';

/** One takes over from another under load; how visits ended that were not served. */
async function lostAcross(gateway: GatewayProcess, replica: Replica): Promise<string[]> {
  const old = gateway.servingPid;
  expect((await gateway.cluster()).pid).toBe(old);
  const readings = await heldStreams(gateway, replica, 8);
  const knocking = new Knocking(gateway, { fresh: 8, kept: 4 });
  gateway.kill('SIGUSR2');
  await eventually('two processes', () => gateway.servingPids.length === 2);
  const [, next] = gateway.servingPids;
  await eventually(
    'the new one is asked',
    async () => (await gateway.cluster()).pid === next,
    startMs,
  );
  // The old one lives for as long as its streams.
  expect(gateway.servingPids).toEqual([old, next]);
  replica.gate.release();
  await expectWhole(readings);
  await alone(gateway);
  expect(total(await gateway.metrics(), 'sluice_restarts_total', { result: 'ok' })).toBe(1);
  return knocking.stop();
}

describe.each(testEngines)('%s', (engine) => {
  test('streams go on across it, and no client is refused or told of it', {
    timeout: 6 * startMs,
  }, async () => {
    await supervised(
      {},
      async (gateway, replica) => {
        // Another process may stop a thread between its look at the queue and the close.
        let tries = 0;
        while ((await lostAcross(gateway, replica)).length > 0) expect(++tries).toBeLessThan(3);
        expect(replica.stats()).toMatchObject({ aborted: 0, cut: 0, ids_repeated: 0 });
        expect(gateway.output()).not.toContain('ended badly');
        expect(await gateway.stop()).toEqual({ code: 0, signal: null });
      },
      engine,
    );
  });

  test('a kept connection of the old one is served and closed by its next answer', {
    timeout: 2 * startMs,
  }, async () => {
    await supervised(
      {},
      async (gateway) => {
        const client = new KeptClient(gateway.port);
        try {
          gateway.kill('SIGUSR2');
          // One that came every few seconds would do: both engines keep an idle connection for 10 s.
          let answer = await client.ask();
          while (!answer.closes) {
            expect(answer.status).toBe(200);
            answer = await client.ask();
          }
          expect(answer.status).toBe(200);
          expect(client.connections).toBe(1);
          await gateway.said('another process has taken over');
          expect(await client.ask()).toEqual({ status: 200, closes: false });
          expect(client.connections).toBe(2);
          await alone(gateway);
        } finally {
          client.close();
        }
      },
      engine,
    );
  });
});

test('a broken config keeps the old one; a mended one takes over with keys that need a restart', {
  timeout: 3 * startMs,
}, async () => {
  await supervised({}, async (gateway, replica, config) => {
    const old = gateway.servingPid;
    gateway.writeConfig('models: []\nqueue: { maxx: 1 }\n');
    gateway.kill('SIGUSR2');
    await gateway.said('restart failed: the new process ended (exit 2) before it served');
    await gateway.said('restart failed; this process stays');
    expect(gateway.output()).toMatch(/sluice\.yaml:2:10 queue\.maxx: unknown key/);
    expect(gateway.servingPids).toEqual([old]);
    expect(await serves(gateway)).toBe(200);
    expect((await gateway.cluster()).restart_problem).toContain('exit 2');
    expect(total(await gateway.metrics(), 'sluice_restarts_total', { result: 'failed' })).toBe(1);

    const more = { memory: { slots: 64 }, threads: { acceptors: 2 } };
    gateway.writeConfig(configOf([replica], { ...config, ...more }));
    const restart = (headers: Record<string, string>): Promise<Response> =>
      fetch(`${gateway.adminUrl}/admin/restart`, { method: 'POST', headers });
    const authorization = `Bearer ${token}`;
    const name = (await gateway.cluster()).replicas[0]!.name;
    const drain = `${gateway.adminUrl}/admin/replicas/${name}/drain`;
    await fetch(drain, { method: 'POST', headers: { authorization } });
    expect((await restart({})).status).toBe(401);
    const asked = await restart({ authorization: `Bearer ${token}` });
    expect([asked.status, await asked.json()]).toEqual([202, { state: 'asked', pid: old }]);
    await gateway.starts(2);
    await alone(gateway);
    expect(gateway.servingPid).not.toBe(old);
    expect(gateway.output()).toMatch(
      new RegExp(`${name} drained.*changes by hand are not taken over`),
    );
    const slots = await gateway.slots();
    expect(slots.count).toBe(64);
    expect(slots.threads.map(({ name }) => name)).toContain('acceptor-1');
    expect((await gateway.cluster()).restart_problem).toBe('');
    expect(await serves(gateway)).toBe(200);
  });
});

test('another port of the listener: the new one has it, the old one finishes', {
  timeout: 2 * startMs,
}, async () => {
  await supervised({}, async (gateway, replica, config) => {
    const readings = await heldStreams(gateway, replica, 2);
    const port = await freePort();
    const before = gateway.url;
    gateway.writeConfig(configOf([replica], { ...config, listen: { port } }));
    gateway.kill('SIGUSR2');
    await gateway.starts(2);
    expect(gateway.port).toBe(port);
    expect(await serves(gateway)).toBe(200);
    await gateway.said('another process has taken over');
    await expect(post(before, chatBody('x'))).rejects.toThrow();
    replica.gate.release();
    await expectWhole(readings);
    await alone(gateway);
  });
});

// One that is shared belongs to another gateway: its clients are not this one's to take.
test.each([
  ['admin', false],
  ['admin', true],
  ['listen', true],
] as const)(
  'one whose %s port is taken, by one that shares it: %s, is met by nobody',
  { timeout: 2 * startMs },
  async (section, reusePort) => {
    const taken = createServer();
    const address = { host: '127.0.0.1', port: 0, reusePort };
    await new Promise<void>((resolve) => taken.listen(address, resolve));
    const { port } = taken.address() as AddressInfo;
    try {
      await supervised({}, async (gateway, replica, config) => {
        const old = gateway.servingPid;
        const knocking = new Knocking(gateway, { fresh: 4, kept: 2 });
        const more = { ...config[section], host: '127.0.0.1', port };
        gateway.writeConfig(configOf([replica], { ...config, [section]: more }));
        gateway.kill('SIGUSR2');
        await gateway.said('restart failed: the new process ended (exit 1) before it served');
        expect(gateway.output()).toContain(`${port}: the port is in use (${section}.port)`);
        expect(await knocking.stop()).toEqual([]);
        expect(gateway.servingPids).toEqual([old]);
      });
    } finally {
      taken.close();
    }
  },
);

test('one whose replicas are not healthy waits, and takes over once they are', {
  timeout: 2 * startMs,
}, async () => {
  await supervised({ health: quickHealth }, async (gateway, replica, config) => {
    const absent = await freePort();
    const url = `http://127.0.0.1:${absent}`;
    gateway.writeConfig(configOf([{ url }], config));
    gateway.kill('SIGUSR2');
    await gateway.said('waits for healthy replicas before it takes over');
    expect(await serves(gateway)).toBe(200);
    const server = http.createServer((_, response) => response.end('{}'));
    await new Promise<void>((resolve) => server.listen(absent, '127.0.0.1', resolve));
    try {
      await gateway.starts(2);
      await alone(gateway);
      expect((await gateway.cluster()).replicas.map((row) => row.url)).toEqual([url]);
      expect(replica.stats().in_flight).toBe(0);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

test('streams that are longer than drain.timeout are cut as by a drain', {
  timeout: 2 * startMs,
}, async () => {
  await supervised({ drain: { timeout: '300ms' } }, async (gateway, replica) => {
    const [reading] = await heldStreams(gateway, replica, 1);
    gateway.kill('SIGUSR2');
    await gateway.starts(2);
    const { text } = await reading!.ended;
    const ledger = readSse(new TextEncoder().encode(text), chatSeries(heldPrompt(0)));
    expect(ledger).toMatchObject({ exact: true, sawDone: false });
    expect(ledger.errors).toMatchObject([{ code: 'shutting_down' }]);
    await alone(gateway);
    expect(await serves(gateway)).toBe(200);
  });
});

test('without a supervisor nobody takes over and nothing ends', async () => {
  await withReplicas(1, {}, async ([replica]) => {
    const config = configOf([replica!], { admin: { token } });
    await withGateway({ config }, async (gateway) => {
      gateway.kill('SIGUSR2');
      await gateway.said('SIGUSR2 is ignored: no supervisor');
      const headers = { authorization: `Bearer ${token}` };
      const asked = await fetch(`${gateway.adminUrl}/admin/restart`, { method: 'POST', headers });
      expect(asked.status).toBe(409);
      expect((await gateway.ready()).status).toBe(200);
    });
  });
});
