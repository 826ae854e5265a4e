/**
 * T47: a config file goes bad under load, and SIGHUP or the watch of the file brings it up: the old
 * config stays, the log says what is wrong, the failure is counted once, no request is lost.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { configOf, total, withReplicas } from '../support/scenario.ts';
import { reached } from '../support/traffic.ts';

const reloads = async (gateway: GatewayProcess, result: 'ok' | 'failed'): Promise<number> =>
  total(await gateway.metrics(), 'sluice_config_reloads_total', { result });

/** Resolves once so many reloads had that result; the watch takes two looks, a second apart. */
const reloaded = (gateway: GatewayProcess, result: 'ok' | 'failed', count: number) =>
  reached(
    () => reloads(gateway, result),
    (n) => n === count,
    `${count} reloads ${result}`,
    30_000,
  );

const broken: readonly [name: string, text: string | undefined, complaint: RegExp][] = [
  ['bad YAML', 'models: [\n  { name: m,', /sluice\.yaml:\d+:\d+/],
  ['an unknown field', 'models: []\nqueue: { maxx: 1 }\n', /:2:10 queue\.maxx: unknown key/],
  ['no replica', 'models: [{ name: m, replicas: [] }]', /:1:\d+ models\.0\.replicas/],
  // A folder is what nobody can read as a file, whatever rights he has.
  ['what cannot be read', undefined, /EISDIR/],
];

test.concurrent.each(['SIGHUP', '--watch'] as const)(
  'T47: broken files by %s under load',
  async (means) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-broken-'));
    const path = join(folder, 'sluice.yaml');
    const put = (text: string | undefined): void => {
      rmSync(path, { recursive: true, force: true });
      if (text === undefined) mkdirSync(path);
      else writeFileSync(path, text);
    };
    await withReplicas(2, { profile: 'tokens:ttft=4ms,itl=1ms' }, async (replicas) => {
      const log = { log: { level: 'info', sample: 0 } } as const;
      const addresses = { listen: { host: '127.0.0.1', max_connections: 1000 } };
      const textOf = (count: number): string =>
        JSON.stringify(configOf(replicas.slice(0, count), { ...log, ...addresses }));
      put(textOf(1));
      const watch = means === '--watch' ? ['--watch'] : [];
      const names = async (gateway: GatewayProcess): Promise<string[]> =>
        (await gateway.cluster()).replicas.map(({ name }) => name);
      try {
        await withGateway({ flags: ['--config', path, ...watch] }, async (gateway) => {
          const bring = (text: string | undefined): void => {
            put(text);
            if (means === 'SIGHUP') gateway.kill(means);
          };
          const load = new ClientLoad(gateway.port, 8, `t47${means}`);
          for (const [i, [name, text, complaint]] of broken.entries()) {
            const from = gateway.output().length;
            const { length } = load.calls;
            bring(text);
            await reloaded(gateway, 'failed', i + 1);
            await reached(
              async () => gateway.output().slice(from),
              (said) => /config not reloaded; the old one stays/.test(said) && complaint.test(said),
              `the log tells of ${name}`,
            );
            await reached(
              async () => load.calls.length,
              (count) => count > length + 50,
              'it serves on',
            );
            expect(await names(gateway)).toEqual(['r1']);
          }
          bring(textOf(2));
          await reloaded(gateway, 'ok', 1);
          expect(await names(gateway)).toEqual(['r1', 'r2']);
          await replicas[1]!.until(({ served }) => served > 10);
          const calls = await load.stop();
          expect(endsOf(calls)).toEqual({ done: calls.length });
          expect(await reloads(gateway, 'failed')).toBe(broken.length);
          figure('T47', `${means}: failed reloads`, broken.length, `dropped 0 of ${calls.length}`);
        });
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  },
  90_000,
);
