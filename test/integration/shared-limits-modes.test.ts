/** Shared limits in a real Redis Cluster and behind a real Sentinel, over a failover of the master. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { hasRedis, hasSentinel, RedisServer } from '../support/redis-server.ts';
import { SharedLimitsScene } from '../support/shared-limits.ts';
import { eventually } from '../support/until.ts';

/** Servers that find each other take seconds, more on a busy machine. */
const formsMs = 30_000;
const testMs = 120_000;

const tenantCount = 12;
const tenants = Object.fromEntries(
  Array.from({ length: tenantCount }, (_, i) => [
    `t${i}`,
    { limits: { requests_per_minute: 4, output_tokens_per_minute: 60_000, burst: '60s' } },
  ]),
);

/** One that takes connections and says nothing: whoever is listed beside it serves all the same. */
async function silentNode(): Promise<RedisServer> {
  const node = await RedisServer.start();
  node.signal('SIGSTOP');
  return node;
}

async function expectNoneFailed(scene: SharedLimitsScene): Promise<void> {
  for (const gateway of scene.gateways) expect(await scene.calls(gateway, 'failed')).toBe(0);
}

test.skipIf(!hasRedis)(
  'a cluster of three (skipped without redis-server)',
  async () => {
    const nodes: RedisServer[] = [];
    let scene: SharedLimitsScene | undefined;
    try {
      const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
      for (let i = 0; i < 3; i++) nodes.push(await RedisServer.start({ args }));
      const silent = await silentNode();
      nodes.push(silent);
      const addresses = nodes.slice(0, 3).map(({ port }) => `127.0.0.1:${port}`);
      const create = ['--cluster', 'create', ...addresses, '--cluster-yes'];
      const made = spawnSync('redis-cli', create, { encoding: 'utf8' });
      expect(made.status, made.stdout).toBe(0);
      await eventually(
        'the cluster serves',
        () =>
          nodes
            .slice(0, 3)
            .every((node) => node.cli('cluster', 'info').includes('cluster_state:ok')),
        formsMs,
      );
      scene = await SharedLimitsScene.start(2, tenants, {
        ...{ mode: 'cluster', urls: [silent.url, nodes[0]!.url], timeout: '5s' },
      });
      await scene.expectShared(tenants);
      await expectNoneFailed(scene);
      const held = nodes.slice(0, 3).map((node) => Number(node.cli('dbsize')));
      expect(
        held.every((keys) => keys > 0),
        `keys of each node: ${held}`,
      ).toBe(true);
    } finally {
      await scene?.close();
      for (const node of nodes) await node.close();
    }
  },
  testMs,
);

test.skipIf(!hasSentinel)(
  'Sentinel, and another master (skipped without redis-sentinel)',
  async () => {
    const servers: RedisServer[] = [];
    let scene: SharedLimitsScene | undefined;
    try {
      const master = await RedisServer.start();
      servers.push(master);
      const args = ['--replicaof', '127.0.0.1', String(master.port)];
      const standby = await RedisServer.start({ args });
      servers.push(standby);
      await eventually(
        'the standby follows',
        () => standby.cli('info', 'replication').includes('master_link_status:up'),
        formsMs,
      );
      const sentinel = await RedisServer.start({
        sentinel: [
          `sentinel monitor limits 127.0.0.1 ${master.port} 1`,
          'sentinel down-after-milliseconds limits 500',
          'sentinel failover-timeout limits 3000',
          '',
        ].join('\n'),
      });
      servers.push(sentinel);
      const silent = await silentNode();
      servers.push(silent);
      await eventually(
        'Sentinel knows the standby',
        () => sentinel.cli('sentinel', 'replicas', 'limits').includes(String(standby.port)),
        formsMs,
      );
      scene = await SharedLimitsScene.start(2, tenants, {
        ...{ mode: 'sentinel', master: 'limits', urls: [silent.url, sentinel.url], timeout: '5s' },
      });
      await scene.expectShared(tenants);
      await expectNoneFailed(scene);
      await master.kill();
      await eventually(
        'the standby is the master',
        () => standby.cli('role').startsWith('master'),
        formsMs,
      );
      const { gateways } = scene;
      // What fails first finds out; what one bucket had is gone in both.
      for (const gateway of gateways) await scene.ask(gateway, 't0');
      for (const gateway of gateways) {
        await eventually('the new master answers', () => scene!.isUp(gateway), formsMs);
      }
      const again = await Promise.all(gateways.map((gateway) => scene!.ask(gateway, 't1')));
      expect(again.map(({ status }) => status)).toEqual([429, 429]);
    } finally {
      await scene?.close();
      for (const server of servers) await server.close();
    }
  },
  60_000,
);
