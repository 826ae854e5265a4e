/** serve --watch: the config file as Kubernetes changes it. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';

test('--watch follows a ConfigMap: the link above the file is swapped, and a wrong file changes nothing', async () => {
  const log = { log: { level: 'info' } } as const;
  await withReplicas(2, {}, async (replicas) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-configmap-'));
    /** As kubelet does: a folder of its own for each version, and one rename. */
    const swap = (version: string, text: string): void => {
      mkdirSync(join(folder, version));
      writeFileSync(join(folder, version, 'sluice.yaml'), text);
      symlinkSync(version, join(folder, '..data_tmp'));
      renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    };
    swap('v1', JSON.stringify(configOf(replicas.slice(0, 1), log)));
    const path = join(folder, 'sluice.yaml');
    symlinkSync(join('..data', 'sluice.yaml'), path);
    try {
      await withGateway({ flags: ['--config', path, '--watch'] }, async (gateway) => {
        swap('v2', JSON.stringify(configOf(replicas, log)));
        await gateway.said('config reloaded');
        expect((await gateway.cluster()).replicas.map(({ name }) => name)).toEqual(['r1', 'r2']);
        swap('v3', 'models: []');
        await gateway.said('config not reloaded; the old one stays');
        expect((await gateway.cluster()).replicas.map(({ name }) => name)).toEqual(['r1', 'r2']);
        expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
