/** Shared limits over TLS: one server, one that is found by its name alone, and a cluster. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasOpenssl, makeCertificate } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { hasRedisTls, RedisServer } from '../support/redis-server.ts';
import { SharedLimitsScene } from '../support/shared-limits.ts';
import { eventually } from '../support/until.ts';

const tenants = Object.fromEntries(
  Array.from({ length: 8 }, (_, i) => [
    `t${i}`,
    {
      limits: { requests_per_minute: 4, burst: '60s' as const },
      // Only the store lets it in.
      failure_mode: 'closed' as const,
    },
  ]),
);
const formsMs = 30_000;
const testMs = 120_000;

describe.skipIf(!hasRedisTls || !hasOpenssl)('Redis with TLS (skipped without it)', () => {
  let folder: string;
  let cert: string;
  let key: string;
  const servers: RedisServer[] = [];

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-redis-tls-'));
    ({ cert, key } = makeCertificate(folder, 'redis'));
  });
  afterAll(async () => {
    for (const server of servers) await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function startTls(...more: string[]): Promise<{ server: RedisServer; tlsPort: number }> {
    const tlsPort = await freePort();
    const files = ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', cert];
    const args = ['--tls-port', String(tlsPort), ...files, '--tls-auth-clients', 'no', ...more];
    const server = await RedisServer.start({ args });
    servers.push(server);
    return { server, tlsPort };
  }
  const started = (redis: object, env: Readonly<Record<string, string>>) =>
    SharedLimitsScene.start(2, tenants, { timeout: '5s', ...redis }, env);

  test(
    'one server, whose certificate is trusted',
    async () => {
      const { server, tlsPort } = await startTls();
      const urls = [`rediss://127.0.0.1:${tlsPort}`];
      const scene = await started({ urls }, { NODE_EXTRA_CA_CERTS: cert });
      try {
        await scene.expectShared(tenants);
        await server.kill();
        const gateway = scene.gateways[0]!;
        await eventually(
          'it is known',
          async () => (await scene.ask(gateway, 't0')).status === 503,
        );
        await server.startAgain();
        await eventually('it is back', () => scene.isUp(gateway), formsMs);
        expect((await scene.ask(gateway, 't0')).status).toBe(200);
        expect(gateway.output()).not.toContain('DEP0123');
      } finally {
        await scene.close();
      }
    },
    testMs,
  );

  test(
    'a certificate that nobody trusts: the store is down, and the log says why',
    async () => {
      const { tlsPort } = await startTls();
      const scene = await started({ urls: [`rediss://127.0.0.1:${tlsPort}`] }, {});
      try {
        expect((await scene.ask(scene.gateways[0]!, 't0')).status).toBe(503);
        await scene.gateways[0]!.said('DEPTH_ZERO_SELF_SIGNED_CERT');
      } finally {
        await scene.close();
      }
    },
    testMs,
  );

  test(
    'one behind a front that finds it by its name, as providers have',
    async () => {
      const { server } = await startTls();
      const asked = new Set<string | false | null>();
      const front = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (near) => {
        asked.add(near.servername);
        const far = connect(server.port, '127.0.0.1');
        near.pipe(far).pipe(near);
        near.on('error', () => far.destroy());
        far.on('error', () => near.destroy());
      });
      await new Promise<void>((resolve) => front.listen(0, 'localhost', resolve));
      const { port } = front.address() as { port: number };
      const scene = await started(
        { urls: [`rediss://localhost:${port}`] },
        { NODE_EXTRA_CA_CERTS: cert },
      );
      try {
        await scene.expectShared(tenants);
        expect([...asked]).toEqual(['localhost']);
      } finally {
        await scene.close();
        front.close();
      }
    },
    testMs,
  );

  test(
    'a cluster of three',
    async () => {
      const nodes: Awaited<ReturnType<typeof startTls>>[] = [];
      const args = ['--cluster-enabled', 'yes', '--tls-cluster', 'yes'];
      for (let i = 0; i < 3; i++) {
        nodes.push(await startTls(...args, '--cluster-node-timeout', '2000'));
      }
      const addresses = nodes.map(({ tlsPort }) => `127.0.0.1:${tlsPort}`);
      const create = [
        '--tls',
        '--cacert',
        cert,
        '--cluster',
        'create',
        ...addresses,
        '--cluster-yes',
      ];
      const made = spawnSync('redis-cli', create, { encoding: 'utf8' });
      expect(made.status, made.stdout).toBe(0);
      const isOk = () =>
        nodes.every(({ server }) => server.cli('cluster', 'info').includes('cluster_state:ok'));
      await eventually('the cluster serves', isOk, formsMs);
      const urls = [`rediss://127.0.0.1:${nodes[0]!.tlsPort}`];
      const scene = await started({ mode: 'cluster', urls }, { NODE_EXTRA_CA_CERTS: cert });
      try {
        await scene.expectShared(tenants);
        const held = nodes.map(({ server }) => Number(server.cli('dbsize')));
        expect(
          held.every((count) => count > 0),
          `keys of each node: ${held}`,
        ).toBe(true);
      } finally {
        await scene.close();
      }
    },
    testMs,
  );
});
