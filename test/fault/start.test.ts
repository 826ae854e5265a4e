/** The time between the start of the process and the first request: probes, pages, signals. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { gatedHealth as health, withGate } from '../support/gate.ts';
import { type GatewayProcess, withStartingGateway } from '../support/gateway.ts';
import { configOf } from '../support/scenario.ts';

test('the admin listener answers probes alone', async () => {
  const port = await freePort();
  const ask = async (path: string, init: RequestInit = {}): Promise<[number, string]> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
    return [response.status, await response.text()];
  };
  await withGate(async (gate) => {
    const admin = { port, token: 'start-token' };
    const config = configOf([gate], { health, admin });
    await withStartingGateway({ config }, async (gateway) => {
      await gate.asked;
      expect(await ask('/healthz')).toMatchObject([200, /true/]);
      expect(await ask('/readyz')).toEqual([503, expect.stringContaining('"starting"')]);
      for (const page of ['/metrics', '/v1/cluster', '/admin/slots']) {
        expect(await ask(page), page).toEqual([503, expect.stringContaining('still starting')]);
      }
      const change = { method: 'POST', headers: { authorization: 'Bearer start-token' } };
      expect((await ask('/admin/replicas/r1/drain', { method: 'POST' }))[0]).toBe(401);
      expect((await ask('/admin/replicas/r1/drain', change))[0]).toBe(503);
      gate.release();
      await gateway.starts(1);
      expect((await ask('/readyz'))[0]).toBe(200);
      expect((await ask('/metrics'))[0]).toBe(200);
    });
  });
});

const names = async (gateway: GatewayProcess): Promise<string[]> =>
  (await gateway.cluster()).replicas.map(({ name }) => name);

test.each([false, true])(
  'a SIGHUP is obeyed once it serves, supervisor: %s',
  async (supervisor) => {
    await withGate(async (gate) => {
      const config = configOf([gate], { health });
      await withStartingGateway({ config, supervisor }, async (gateway) => {
        await gate.asked;
        const more = { url: gate.url.replace('127.0.0.1', 'localhost'), name: 'r2' };
        const replicas = [{ url: gate.url, name: 'r1' }, more];
        gateway.writeConfig(configOf([], { health }, { replicas }));
        gateway.kill('SIGHUP');
        gate.release();
        await gateway.starts(1);
        await expect.poll(() => names(gateway)).toEqual(['r1', 'r2']);
        expect(await gateway.stop()).toEqual({ code: 0, signal: null });
      });
    });
  },
);

test('a SIGHUP that comes while the config is being read is obeyed once it serves', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-start-'));
  const fifo = join(folder, 'config.yaml');
  execFileSync('/usr/bin/mkfifo', [fifo]);
  /** Waits until somebody reads the config, and lets them have it. */
  const serveConfig = async (replicas: readonly object[], before = (): void => {}) => {
    const pipe = await open(fifo, 'w');
    before();
    await pipe.write(
      JSON.stringify({ models: [{ name: 'm', replicas }], listen: { max_connections: 100 } }),
    );
    await pipe.close();
  };
  const rows = ['r1', 'r2'].map((name, i) => ({ name, url: `http://127.0.0.1:${i + 1}` }));
  try {
    await withStartingGateway({ flags: ['--config', fifo] }, async (gateway) => {
      await serveConfig(rows.slice(0, 1), () => gateway.kill('SIGHUP'));
      await gateway.starts(1);
      await serveConfig(rows);
      await expect.poll(() => names(gateway)).toEqual(['r1', 'r2']);
    });
  } finally {
    closeSync(openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)); // for a pipe nobody reads
    rmSync(folder, { recursive: true });
  }
});

test.each(['SIGTERM', 'SIGINT'] as const)('%s ends it, before its probes do', async (signal) => {
  await withGate(async (gate) => {
    const config = configOf([gate], { health });
    await withStartingGateway({ config }, async (gateway) => {
      await gate.asked;
      gateway.kill(signal);
      expect(await gateway.exited).toEqual({ code: 0, signal: null });
      expect(gateway.output()).toBe('');
    });
  });
});
