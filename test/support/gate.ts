/** A replica that keeps its probes waiting: for as long as it does, a gateway starts. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Gate {
  readonly url: string;
  /** Resolves once a probe waits, since the gate was last shut. */
  readonly asked: Promise<void>;
  shut(): void;
  release(): void;
}

/** Runs `use` with a gate that is shut at first. */
export async function withGate(use: (gate: Gate) => Promise<void>): Promise<void> {
  let asked = Promise.withResolvers<void>();
  let released = Promise.withResolvers<void>();
  const server = createServer(async (_, response) => {
    asked.resolve();
    await released.promise;
    response.end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const gate: Gate = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get asked() {
      return asked.promise;
    },
    shut() {
      asked = Promise.withResolvers<void>();
      released = Promise.withResolvers<void>();
    },
    release: () => released.resolve(),
  };
  try {
    await use(gate);
  } finally {
    gate.release();
    server.closeAllConnections();
    server.close();
  }
}

/** For configs with a gate: probes have all the time of the test. */
export const gatedHealth = { interval: '1m', timeout: '1m' } as const;
