/** What `sluice serve` says of a config that is valid and does not do what it says. */
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { sha256Of } from '../../src/protocol/api-key.ts';
import { adminPost } from '../support/admin-post.ts';
import { withGateway } from '../support/gateway.ts';

const token = 'warnings';

test('it is said at the start, once, and of a reload in the log; nothing else comes of it', async () => {
  const keys = [{ id: 'one', sha256: sha256Of('k') }];
  const config = (more: object = {}): ConfigInput => ({
    ...{ admin: { token }, hedge: { budget: 0.1 } },
    tenants: [{ name: 't', keys, ...more }],
    models: [{ name: 'm', replicas: [{ url: 'http://127.0.0.1:1' }] }],
  });
  await withGateway({ config: config(), supervisor: true }, async (gateway) => {
    const atStart = 'hedge.budget: does nothing without `hedge.automatic: true` (warning)';
    expect(gateway.output().split(atStart)).toHaveLength(2);
    gateway.writeConfig(config({ failure_mode: 'closed' }));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    await gateway.said('tenants.0.failure_mode: does nothing');
  });
});
