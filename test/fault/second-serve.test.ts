/** A second `sluice serve` of the same config, started by accident. */
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { withStartingGateway } from '../support/gateway.ts';
import { configOf, withReplicas } from '../support/scenario.ts';

/** Whether anybody accepts a connection; one that met itself, as two free ports may, does not count. */
function isAccepted(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const answer = (accepted: boolean) => (): void => {
      const isOwn = socket.localPort === port;
      socket.destroy();
      resolve(accepted && !isOwn);
    };
    socket.once('connect', answer(true));
    socket.once('error', answer(false));
  });
}

// The kernel shares out connections among all that listen: what it gave to one that ends is lost.
test.each([
  ['uws', true],
  ['node', false],
] as const)(
  'one whose admin port is taken never listens for clients, engine %s, by one that shares it: %s',
  async (engine, reusePort) => {
    // A gateway shares it with one that takes over, which this one was not told to.
    const first = createServer();
    const address = { host: '127.0.0.1', port: 0, reusePort };
    await new Promise<void>((resolve) => first.listen(address, resolve));
    const admin = { port: (first.address() as AddressInfo).port };
    const listen = { engine, port: await freePort() };
    try {
      await withReplicas(1, {}, ([replica]) =>
        withStartingGateway({ config: configOf([replica!], { listen, admin }) }, async (second) => {
          let isOver = false;
          const exit = second.exited.finally(() => {
            isOver = true;
          });
          let accepted = 0;
          while (!isOver) if (await isAccepted(listen.port)) accepted++;
          expect(await exit).toEqual({ code: 1, signal: null });
          expect(second.output()).toMatch(new RegExp(`${admin.port}.*in use`));
          expect(accepted).toBe(0);
        }),
      );
    } finally {
      first.close();
    }
  },
);
