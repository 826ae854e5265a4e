/** Told to leave while its acceptors start: whoever has been accepted is served. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Gateway } from '../../src/gateway/gateway.ts';
import { ClosedWhileStarting } from '../../src/gateway/gateway-options.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { freePort } from '../support/free-port.ts';
import { RawClient, rawPost } from '../support/raw-client.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, configOf } from '../support/scenario.ts';
import { loaded } from '../unit/config/support.ts';

let replica: Replica;
beforeAll(async () => {
  replica = await replicaInProcess({ model: 'm', profile: 'instant' });
});
afterAll(() => replica.close());

async function connected(port: number): Promise<RawClient> {
  for (;;) {
    const client = await RawClient.connect(port).catch(() => undefined);
    if (client !== undefined) return client;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('the first acceptor has a client, the others are to come', async () => {
  const port = await freePort();
  const config = loaded(
    JSON.stringify(
      configOf([replica], {
        listen: { engine: 'node', host: '127.0.0.1', port, max_connections: 100 },
        admin: { port: 0 },
        threads: { acceptors: 6 },
        memory: { arena: '384MiB' },
        log: { level: 'silent' },
      }),
    ),
  );
  let leaving = 0;
  const gateway = new Gateway({ config, onFatal: () => {}, onLeaving: () => leaving++ });
  const listening = gateway.listen();
  const taken = expect(listening).rejects.toThrow(ClosedWhileStarting);
  const client = await connected(port);
  const left = Promise.all([gateway.leave(), gateway.leave()]);
  // It is told once no acceptor listens any more.
  for (let count = 1, closes = false; !closes; count++) {
    await client.send(rawPost(chatPath, chatBody('x [[len=1]]')));
    const response = (await client.responses(count)).responses[count - 1];
    expect(response?.status).toBe(200);
    closes = response?.headers.get('connection') === 'close';
  }
  await client.close();
  await left;
  await taken;
  expect(leaving).toBe(1);
});
