/** How long a gateway is away when its process is killed. */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';

test('a gateway process that is killed is back on its port within 2 s', async () => {
  const port = await freePort();
  await withReplicas(1, { profile: 'instant' }, ([replica]) => {
    const config = configOf([replica!], { listen: { port } });
    const startedMs = nowMs();
    return withGateway({ supervisor: true, config }, (gateway) => killOnce(gateway, startedMs));
  });

  async function killOnce(gateway: GatewayProcess, startedMs: number): Promise<void> {
    // 2 s on a machine with time to spare; on a busy one, three times what the first start took.
    const limitMs = Math.max(2000, 3 * (nowMs() - startedMs));
    expect(gateway.port).toBe(port);
    const first = gateway.servingPid;
    const killedMs = nowMs();
    process.kill(first, 'SIGKILL');
    await gateway.starts(2);
    expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
    expect(nowMs() - killedMs).toBeLessThan(limitMs);
    expect(gateway.servingPid).not.toBe(first);
    expect(gateway.port).toBe(port);
    expect((await gateway.stop()).code).toBe(0);
  }
});
