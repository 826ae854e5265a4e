/**
 * Addresses of the two listeners as two gateway processes tell each other of them, and whether one may be
 * joined. Pure but for `probeSole`; main thread, at start.
 *
 * A socket that may be shared (SO_REUSEPORT) joins whoever has the port, also another gateway that nobody
 * meant. So only an address of the process that is to be replaced is joined unasked; of any other it
 * is first found out that nobody has it.
 */
import { createServer } from 'node:net';
import { ListenError } from '../lib/listen-error.ts';

/** `HOST:PORT` as the config has them. */
export interface ListenerAddresses {
  readonly listen: string;
  readonly admin: string;
}

interface Address {
  readonly host: string;
  readonly port: number;
}

export const addressText = ({ host, port }: Address): string => `${host}:${port}`;

/** Whether whoever listens on `other` has this address as well; one who does not say where has. */
export function isJoined({ host, port }: Address, other: string | undefined): boolean {
  if (other === undefined) return true;
  const colon = other.lastIndexOf(':');
  if (other.slice(colon + 1) !== `${port}`) return false;
  const otherHost = other.slice(0, colon);
  return host === otherHost || isWildcard(host) || isWildcard(otherHost);
}

const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::';

/** Rejects with a ListenError when anybody listens there, shared or not. */
export function probeSole(section: 'listen' | 'admin', { host, port }: Address): Promise<void> {
  if (port === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', ({ code }: NodeJS.ErrnoException) =>
      reject(new ListenError(section, host, port, code)),
    );
    server.listen({ host, port }, () => server.close(() => resolve()));
  });
}
