/** The share of its successes that a tenant has in the access log, from the config and from a reload. */
import { expect, test } from 'vitest';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { adminPost } from '../support/admin-post.ts';
import { testEngines, withGateway } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { withReplicas } from '../support/scenario.ts';
import { call } from '../support/traffic.ts';

const token = 'log-sample-token';
const requests = 20;
const keys = { loud: newKey(), quiet: newKey(), plain: newKey() };
type Name = keyof typeof keys;

test.each(testEngines)('%s: a tenant has its own share of successes, and all failures', (engine) =>
  withReplicas(1, { model: 'm', profile: 'instant' }, async ([replica]) => {
    const configWith = (samples: Partial<Record<Name, number>>) => ({
      ...{ listen: { engine }, admin: { token }, retry: { max_attempts: 1 } },
      log: { level: 'info' as const, sample: 0, pretty: 'never' as const },
      tenants: (['loud', 'quiet', 'plain'] as const).map((name) => ({
        ...{ name, keys: [{ id: 'k', sha256: sha256Of(keys[name]) }] },
        ...(samples[name] !== undefined && { log_sample: samples[name] }),
      })),
      models: [{ name: 'm', replicas: [{ url: replica!.url }] }],
    });
    const config = configWith({ loud: 1, quiet: 0 });
    await withGateway({ config }, async (gateway) => {
      const ask = (tenant: Name, nonce: string, tags = '') => {
        const headers = { authorization: `Bearer ${keys[tenant]}` };
        return call(gateway.port, { nonce, tags, headers }).ended;
      };
      /** How many of a row of successes are in the log, once the failure behind them is. */
      const keptOf = async (tenant: Name, row: string): Promise<number> => {
        for (let i = 0; i < requests; i++) await ask(tenant, `${row}-${tenant}-${i}.`);
        await ask(tenant, `${row}-${tenant}-bad`, '[[fault:status=500]]');
        expect(await logged(gateway, `${row}-${tenant}-bad`)).toMatchObject({
          status: 502,
          tenant,
        });
        return gateway.output().split(`"${row}-${tenant}-`).length - 2;
      };
      expect(await keptOf('loud', 'a')).toBe(requests);
      expect(await keptOf('quiet', 'a')).toBe(0);
      expect(await keptOf('plain', 'a')).toBe(0);
      gateway.writeConfig(configWith({ plain: 1 }));
      expect(await adminPost(gateway.adminUrl, token, 'reload')).toMatchObject({ status: 200 });
      expect(await keptOf('loud', 'b')).toBe(0);
      expect(await keptOf('plain', 'b')).toBe(requests);
    });
  }),
);
