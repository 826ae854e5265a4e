/** Addresses of Redis servers, and which of them answer. Event-loop threads; nothing is kept. */
import { connect, isIP } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface RedisNode {
  readonly host: string;
  readonly port: number;
  readonly isTls: boolean;
  /** Empty: none. */
  readonly username: string;
  readonly password: string;
  readonly database: number;
}

/** `redis[s]://[user[:password]@]host[:port][/database]`, as the config has checked it. */
export function parseNode(text: string): RedisNode {
  const { protocol, hostname, port, username, password, pathname } = new URL(text);
  return {
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port || 6379),
    isTls: protocol === 'rediss:',
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: Number(pathname.slice(1) || 0),
  };
}

/** What TLS asks a server for: providers find it by its name, and an address is none. */
export const serverName = (host: string): { servername?: string } =>
  isIP(host) === 0 ? { servername: host } : {};

/** Those that answer a ping, whatever they answer, the quickest first. Rejects when none does in time. */
export async function answeringNodes(
  nodes: readonly RedisNode[],
  limitMs: number,
): Promise<RedisNode[]> {
  const answering: RedisNode[] = [];
  let failure: unknown;
  const first = Promise.withResolvers<void>();
  const all = nodes.map((node) =>
    answers(node, limitMs).then(
      () => {
        answering.push(node);
        first.resolve();
      },
      (error: unknown) => {
        failure ??= error;
      },
    ),
  );
  // The others are waited for only while none has answered.
  await Promise.race([first.promise, Promise.all(all)]);
  if (answering.length === 0) throw failure;
  return [...answering];
}

function answers({ host, port, isTls }: RedisNode, limitMs: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const options = { host, port };
  const socket = isTls ? connectTls({ ...options, ...serverName(host) }) : connect(options);
  const timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
  socket.once(isTls ? 'secureConnect' : 'connect', () => socket.write('PING\r\n'));
  socket.once('data', () => resolve());
  socket.once('error', reject);
  socket.once('close', () => reject(new Error('the connection was closed')));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}
