/**
 * Servers that usage events go to, as Debian has them: started on loopback in a folder of their own, killed
 * by their id, started again with what they had on disk. Kafka is kcat's mock cluster of three brokers,
 * which has everything in memory and other ports at each start; what tells their addresses keeps its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { thisMachine } from '../../scripts/test/servers.ts';
import { readPems } from '../../src/ledger/sinks/sink.ts';
import { freePort } from './free-port.ts';
import { eventually } from './until.ts';

export const has = {
  redis: thisMachine.has('redis-server'),
  nats: thisMachine.has('nats-server'),
  kafka: thisMachine.has('kcat'),
};

/** Keys of a sink that a test may add. */
interface SinkAccess {
  readonly password?: string;
  readonly token?: string;
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
}

/** An event as a server has it. */
export interface Stored {
  readonly id: string;
  readonly key: string;
  readonly event: Record<string, unknown>;
}

export interface UsageServer {
  /** Keys of `usage`. */
  readonly config: object;
  readonly isUp: boolean;
  /** Everything it has, in its order, with what is there twice. */
  stored(): Promise<Stored[]>;
  start(): Promise<void>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Kills it and removes its files. */
  close(): Promise<void>;
}

class Server {
  readonly folder = mkdtempSync(join(tmpdir(), 'sluice-server-'));
  readonly #command: string;
  #child: ChildProcess | undefined;
  #isClosed = false;

  constructor(command: string) {
    this.#command = command;
  }

  get isUp(): boolean {
    return this.#child !== undefined;
  }

  /** Resolves once a line of its output has the text. */
  async start(
    args: readonly string[],
    ready: string,
    onLine: (line: string) => void = () => {},
  ): Promise<void> {
    // A test that ran out of time goes on behind its end.
    if (this.#isClosed) throw new Error(`${this.#command} is closed`);
    const child = spawn(this.#command, args, {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
    this.#child = child;
    let output = '';
    await new Promise<void>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', (line) => {
          if (output.length < 100_000) output += `${line}\n`;
          onLine(line);
          if (line.includes(ready)) resolve();
        });
      }
      child.once('error', reject);
      child.once('close', () => reject(new Error(`${this.#command} ended: ${output}`)));
    }).catch(async (error) => {
      await this.close();
      throw error;
    });
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const closed = once(child, 'close');
    child.kill(signal);
    await closed;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What it has said is stored outlives its death. `more` goes behind the usual arguments. */
export async function redisServer(
  more: readonly string[] = [],
  access: SinkAccess = {},
): Promise<UsageServer> {
  const server = new Server('redis-server');
  const port = await freePort();
  const stream = 'usage';
  const { tls } = access;
  const listen =
    tls === undefined ? ['--port', `${port}`] : ['--port', '0', '--tls-port', `${port}`];
  const usual = [...listen, '--bind', '127.0.0.1', '--save', '', '--dir', server.folder];
  const durable = ['--appendonly', 'yes', '--appendfsync', 'always'];
  const start = (): Promise<void> =>
    server.start([...usual, ...durable, ...more], 'Ready to accept connections');
  await start();
  return {
    config: { redis_stream: { url: `redis://127.0.0.1:${port}`, stream, ...access } },
    get isUp() {
      return server.isUp;
    },
    async stored() {
      const { createClient } = await import('@redis/client');
      const { password } = access;
      const socket = { host: '127.0.0.1', port };
      const client = createClient({
        ...(password === undefined ? {} : { password }),
        socket: tls === undefined ? socket : { ...socket, tls: true, ...readPems(tls) },
      });
      client.on('error', () => {});
      await client.connect();
      const entries = await client.xRange(stream, '-', '+');
      client.destroy();
      return (entries ?? []).map(({ message: { id = '', tenant = '', event = '' } }) => {
        return { id, key: tenant, event: JSON.parse(event) };
      });
    },
    start,
    kill: (signal = 'SIGKILL') => server.kill(signal),
    close: () => server.close(),
  };
}

export async function natsServer(
  more: readonly string[] = [],
  access: SinkAccess = {},
): Promise<UsageServer> {
  const server = new Server('nats-server');
  const port = await freePort();
  const store = join(server.folder, 'store');
  mkdirSync(store);
  const args = ['-js', '-sd', store, '-a', '127.0.0.1', '-p', `${port}`, ...more];
  const start = (): Promise<void> => server.start(args, 'Server is ready');
  await start();
  const { token, tls } = access;
  const servers = [`nats://${tls === undefined ? '127.0.0.1' : 'localhost'}:${port}`];
  const connected = async () => {
    const { connect } = await import('@nats-io/transport-node');
    return connect({
      servers,
      ...(token === undefined ? {} : { token }),
      ...(tls === undefined ? {} : { tls: readPems(tls) }),
    });
  };
  const { jetstreamManager, jetstream, DiscardPolicy } = await import('@nats-io/jetstream');
  const addStream = async (): Promise<void> => {
    const connection = await connected();
    const { streams } = await jetstreamManager(connection);
    await streams.add({ name: 'usage', subjects: ['usage.>'], discard: DiscardPolicy.New });
    await connection.close();
  };
  await addStream().catch(async (error) => {
    await server.close();
    throw error;
  });
  return {
    config: { nats: { servers, subject: 'usage.{tenant}', ...access } },
    get isUp() {
      return server.isUp;
    },
    async stored() {
      const reading = await connected();
      const { state } = await (await jetstreamManager(reading)).streams.info('usage');
      const stored: Stored[] = [];
      if (state.messages > 0) {
        const consumer = await jetstream(reading).consumers.get('usage');
        const messages = await consumer.fetch({ max_messages: state.messages, expires: 5000 });
        for await (const message of messages) {
          const id = message.headers?.get('Nats-Msg-Id') ?? '';
          const key = message.headers?.get('Sluice-Tenant') ?? '';
          stored.push({ id, key, event: message.json() });
          if (stored.length === state.messages) break;
        }
      }
      await reading.close();
      return stored;
    },
    start,
    kill: (signal = 'SIGTERM') => server.kill(signal),
    close: () => server.close(),
  };
}

/** It consumes what it has itself, and forgets it when it dies: `stored` goes on over its lives. */
export async function kafkaServer(): Promise<UsageServer> {
  const server = new Server('kcat');
  const lines: string[] = [];
  let brokers: string[] = [];
  const sockets = new Set<Socket>();
  // Clients know one address; it leads to a broker of the cluster that is up.
  const door = createServer((socket) => {
    const [host, port] = (brokers[0] ?? ':').split(':');
    if (!server.isUp || port === undefined || port === '') {
      socket.destroy();
      return;
    }
    const broker = createConnection(Number(port), host);
    for (const [a, b] of [
      [socket, broker],
      [broker, socket],
    ] as const) {
      sockets.add(a);
      a.pipe(b);
      a.on('error', () => b.destroy());
      a.on('close', () => {
        sockets.delete(a);
        b.destroy();
      });
    }
  }).listen(0, '127.0.0.1');
  await once(door, 'listening');
  const address = door.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const mark = 'bootstrap.servers=';
  const start = async (): Promise<void> => {
    const mock = ['-X', 'test.mock.num.brokers=3', '-d', 'mock'];
    const consume = ['-C', '-b', 'x:1', '-t', 'usage', '-u', '-q', '-f', 'EVENT %k %h %s\\n'];
    await server.start([...consume, ...mock], mark, (line) => {
      if (line.startsWith('EVENT ')) lines.push(line);
      const at = line.indexOf(mark);
      if (at >= 0)
        brokers = line
          .slice(at + mark.length)
          .split(' ')[0]!
          .split(',');
    });
  };
  await start();
  return {
    config: { kafka: { brokers: [`127.0.0.1:${port}`], topic: 'usage' } },
    get isUp() {
      return server.isUp;
    },
    stored: async () =>
      lines.map((line) => {
        const json = line.indexOf('{');
        const [, key = '', header = ''] = line.slice(0, json).split(' ');
        return { id: header.replace('id=', ''), key, event: JSON.parse(line.slice(json)) };
      }),
    start,
    kill: (signal = 'SIGKILL') => server.kill(signal),
    async close() {
      await server.close();
      for (const socket of sockets) socket.destroy();
      door.close();
    },
  };
}

/** Resolves once the server has events of so many ids. */
export async function storedIds(
  server: UsageServer,
  count: number,
  limitMs = 20_000,
): Promise<Stored[]> {
  let stored: Stored[] = [];
  const isThere = async (): Promise<boolean> => {
    stored = await server.stored();
    return new Set(stored.map(({ id }) => id)).size >= count;
  };
  await eventually(`${count} events are stored`, isThere, limitMs);
  return stored;
}
