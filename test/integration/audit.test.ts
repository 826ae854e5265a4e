/** The audit log of a gateway: every change asked of the admin listener, once, and nothing that is secret. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const token = 'audit-admin-secret';
const wrongToken = 'audit-wrong-secret';
const replicaKey = 'audit-replica-secret';

/** Everything that changes something, done once; returns the key that was made. */
async function change(gateway: GatewayProcess, url: string): Promise<string> {
  const post = (page: string, body?: object) => adminPost(gateway.adminUrl, token, page, body);
  const status = async (page: string, body?: object) => (await post(page, body)).status;
  expect(await status('replicas', { model: 'm', name: 'r2', url, api_key: replicaKey })).toBe(201);
  expect(await status('replicas/r2/drain')).toBe(200);
  expect(await status('replicas/r2/undrain')).toBe(200);
  expect(await status('replicas/r2/remove')).toBe(200);
  expect(await status('replicas/none/drain')).toBe(404);
  expect(await status('replicas', { model: 'm', url: 'no url', api_key: replicaKey })).toBe(400);
  const made = await post('tenants/acme/keys', { id: 'new' });
  expect(made.status).toBe(201);
  expect(await status('tenants/acme/keys/ci/disable')).toBe(200);
  expect(await status('tenants/acme/keys/ci/enable')).toBe(200);
  expect(await status('restart')).toBe(409);
  expect(await status('reload')).toBe(200);
  const wrong = await adminPost(gateway.adminUrl, wrongToken, 'reload');
  expect(wrong.status).toBe(401);
  return (made.body as { key: string }).key;
}

const expected = [
  ['admin', 'replica.add', 'r2', 'ok', 201],
  ['admin', 'replica.drain', 'r2', 'ok', 200],
  ['admin', 'replica.undrain', 'r2', 'ok', 200],
  ['admin', 'replica.remove', 'r2', 'ok', 200],
  ['admin', 'replica.drain', 'none', 'refused', 404],
  ['admin', 'replica.add', '', 'refused', 400],
  ['admin', 'key.create', 'acme/new', 'ok', 201],
  ['admin', 'key.disable', 'acme/ci', 'ok', 200],
  ['admin', 'key.enable', 'acme/ci', 'ok', 200],
  ['admin', 'restart', '', 'refused', 409],
  ['admin', 'reload', '', 'ok', 200],
  ['nobody', 'reload', '', 'refused', 401],
];

interface Line {
  readonly audit?: boolean;
  readonly who: string;
  readonly remote: string;
  readonly action: string;
  readonly target: string;
  readonly result: string;
  readonly status: number;
}

const linesOf = (text: string): Line[] =>
  text
    .split('\n')
    .filter((line) => line.includes('"audit":true'))
    .map((line) => JSON.parse(line) as Line);

async function audited(
  admin: { readonly audit_log?: string },
  level: 'error' | 'info',
  textOf: (gateway: GatewayProcess) => string,
): Promise<void> {
  await withReplicas(1, { model: 'm' }, async ([replica]) => {
    const config = {
      ...{ admin: { token, ...admin }, log: { level, pretty: 'never' as const } },
      tenants: [{ name: 'acme', keys: [{ id: 'ci', sha256: sha256Of(newKey()) }] }],
      models: [{ name: 'm', replicas: [{ url: replica!.url, name: 'r1' }] }],
    };
    await withGateway({ config }, async (gateway) => {
      const key = await change(gateway, replica!.url);
      await eventually('all lines are there', () => {
        return linesOf(textOf(gateway)).length >= expected.length;
      });
      const lines = linesOf(textOf(gateway));
      expect(
        lines.map(({ who, action, target, result, status }) => [
          who,
          action,
          target,
          result,
          status,
        ]),
      ).toEqual(expected);
      for (const { remote } of lines) expect(remote).toMatch(/127\.0\.0\.1$/);
      for (const secret of [token, wrongToken, replicaKey, key]) {
        expect(textOf(gateway) + gateway.output()).not.toContain(secret);
      }
    });
  });
}

test('it is in the log, whatever the level', () =>
  audited({}, 'error', (gateway) => gateway.output()));

test('it is in a file of its own, and not in the log', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-audit-'));
  const file = join(folder, 'audit.ndjson');
  try {
    await audited({ audit_log: file }, 'info', (gateway) => {
      expect(linesOf(gateway.output())).toEqual([]);
      return readFileSync(file, 'utf8');
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
