/**
 * Why a listener could not take its address, as one line that names the key to change.
 *
 * Any thread; never blocks. It reaches the main thread as the error an acceptor died of, where only its own
 * properties survive: ask `isListenError`, not instanceof.
 */
import { createServer } from 'node:net';

const name = 'ListenError';

export class ListenError extends Error {
  override readonly name = name;

  /** `code` is the errno of bind or listen. */
  constructor(section: 'listen' | 'admin', host: string, port: number, code: string | undefined) {
    const [reason, key] = reasons[code ?? ''] ?? [code ?? 'the address is refused', 'host'];
    const address = host.includes(':') ? `[${host}]` : host;
    super(`cannot listen on ${address}:${port}: ${reason} (${section}.${key})`);
  }
}

const reasons: Readonly<Record<string, readonly [reason: string, key: string]>> = {
  EADDRINUSE: ['the port is in use', 'port'],
  EACCES: ['the port needs a privilege that this user lacks', 'port'],
  EADDRNOTAVAIL: ['this machine has no such address', 'host'],
  ENOTFOUND: ['the name has no address', 'host'],
};

/** Finds out why nobody could listen there, for an engine that does not say. */
export function listenErrorAt(host: string, port: number): Promise<ListenError> {
  return new Promise((resolve) => {
    const refuse = (code?: string): void => resolve(new ListenError('listen', host, port, code));
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => refuse(error.code));
    server.listen({ host, port, reusePort: true }, () => server.close(() => refuse()));
  });
}

export function isListenError(error: unknown): error is Error {
  return error instanceof Error && error.name === name;
}
