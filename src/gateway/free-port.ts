/**
 * A free port that several acceptors will share. Main thread, at start only.
 *
 * uWebSockets.js shares a port (SO_REUSEPORT) only when its number is given: whoever lets it take a
 * free one keeps every other acceptor out. So a free one is held by a socket that is never served,
 * for as long as the acceptors take to join it.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { ListenError } from '../lib/listen-error.ts';

export interface HeldPort {
  readonly port: number;
  release(): void;
}

/** Rejects with a ListenError when the host has no free port. */
export async function holdFreePort(host: string): Promise<HeldPort> {
  const server = createServer().listen({ host, port: 0, reusePort: true });
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new ListenError('listen', host, 0, (error as NodeJS.ErrnoException).code);
  }
  const { port } = server.address() as AddressInfo;
  return { port, release: () => void server.close() };
}
