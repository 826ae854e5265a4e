/**
 * A connection to where gateways share what they count, for one Lua script: one Redis server, a cluster, or
 * whichever server Sentinel calls the master. For event-loop threads; it has none of its own.
 *
 * A call is answered within the time limit or fails. A connection that failed, or that its owner closes, is
 * never used again: what it still owes is not waited for, and nothing is sent later that was asked earlier.
 * Nodes of `urls` that do not answer are left out before the client meets them: it would wait for the first.
 */
import {
  createClient,
  createCluster,
  createSentinel,
  defineScript,
  ErrorReply,
} from '@redis/client';
import { LateError, RefusedError } from './errors.ts';
import { answeringNodes, parseNode, type RedisNode, serverName } from './nodes.ts';

export interface RedisOptions {
  readonly mode: 'single' | 'cluster' | 'sentinel';
  /** `redis://` or `rediss://`; of a cluster or of Sentinel some of its nodes. */
  readonly urls: readonly string[];
  /** Name of the master that Sentinel watches. */
  readonly master: string;
  readonly username: string;
  readonly password: string;
  readonly timeoutMs: number;
}

/** Of one node, and of all that it takes. Nobody waits for a connection. */
const connectTimeoutMs = 500;
const connectMsMax = 3000;
/** A connection that says nothing for so long, not even to a ping, is closed; a silent one never settles. */
const silentMsMax = 2000;
const pingMs = 500;

/** What a server answers that is there and does not serve; anything else is about the call. */
const notServing =
  /^(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOAUTH|WRONGPASS|NOPERM|OOM|MISCONF|NOREPLICAS|BUSY|UNKILLABLE|MOVED|ASK)\b/;

interface RedisParser {
  push(...args: string[]): unknown;
  pushKey(key: string): unknown;
}

const scriptOf = (text: string) =>
  defineScript({
    SCRIPT: text,
    parseCommand(parser: RedisParser, keys: readonly string[], args: readonly string[]): void {
      parser.push(String(keys.length));
      for (const key of keys) parser.pushKey(key);
      parser.push(...args);
    },
    transformReply: (reply: unknown): unknown => reply,
  });
type Scripts = { readonly run: ReturnType<typeof scriptOf> };

interface Client {
  connect(): Promise<unknown>;
  destroy(): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  run(keys: readonly string[], args: readonly string[]): Promise<unknown>;
}

export class RedisConnection {
  readonly #options: RedisOptions;
  readonly #nodes: readonly RedisNode[];
  readonly #scripts: Scripts;
  #client: Client | undefined;

  constructor(options: RedisOptions, script: string) {
    this.#options = options;
    this.#nodes = options.urls.map(parseNode);
    this.#scripts = { run: scriptOf(script) };
  }

  /** Where there is none. */
  async connect(): Promise<void> {
    if (this.#client !== undefined) return;
    const nodes = await answeringNodes(this.#nodes, connectTimeoutMs);
    const client = createRedis(this.#options, nodes, this.#scripts);
    // Commands tell of every failure themselves.
    client.on('error', () => {});
    try {
      await within(connectMsMax, client.connect());
    } catch (error) {
      destroy(client);
      throw error;
    }
    this.#client = client;
  }

  /** What the script answers as numbers, so many; all keys are in one slot of a cluster. */
  async run(keys: readonly string[], args: readonly string[], count: number): Promise<number[]> {
    const client = this.#client;
    if (client === undefined) throw new Error('no connection');
    let reply: unknown;
    try {
      reply = await within(this.#options.timeoutMs, client.run(keys, args));
    } catch (error) {
      if (!(error instanceof ErrorReply)) throw error;
      throw notServing.test(error.message) ? error : new RefusedError(error.message);
    }
    const values = Array.isArray(reply) ? reply.map(Number) : [];
    if (values.length !== count || values.some((value) => !Number.isFinite(value))) {
      throw new Error('Redis answered something else than the script does');
    }
    return values;
  }

  close(): void {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) destroy(client);
  }
}

function createRedis(options: RedisOptions, nodes: readonly RedisNode[], scripts: Scripts): Client {
  const { mode, master, username, password } = options;
  const isTls = nodes.some((node) => node.isTls);
  const socket = {
    ...{ connectTimeout: connectTimeoutMs, socketTimeout: silentMsMax },
    ...{ reconnectStrategy: false as const },
    ...(isTls ? { tls: true as const } : {}),
  };
  const nameOf = (host: string) => (isTls ? serverName(host) : {});
  // Nothing waits for a connection: what cannot be sent fails.
  const common = { socket, pingInterval: pingMs, disableOfflineQueue: true };
  const ownNode = nodes[0] as RedisNode;
  const access = accessOf({
    username: username || (mode === 'sentinel' ? '' : ownNode.username),
    password: password || (mode === 'sentinel' ? '' : ownNode.password),
  });
  if (mode === 'cluster') {
    const rootNodes = nodes.map(({ host, port }) => {
      return { ...common, ...access, socket: { ...socket, host, port, ...nameOf(host) } };
    });
    const defaults = { ...common, ...access };
    const nodeAddressMap = (address: string) => {
      const [, host = '', port] = /^(.*):(\d+)$/.exec(address) ?? [];
      return { host, port: Number(port), ...nameOf(host) };
    };
    return createCluster({ rootNodes, defaults, nodeAddressMap, scripts }) as unknown as Client;
  }
  if (mode === 'sentinel') {
    return createSentinel({
      name: master,
      sentinelRootNodes: nodes.map(({ host, port }) => ({ host, port })),
      nodeClientOptions: { ...common, ...access },
      sentinelClientOptions: { ...common, ...accessOf(ownNode) },
      maxCommandRediscovers: 1,
      scripts,
    }) as unknown as Client;
  }
  const { host, port, database } = ownNode;
  const own = {
    ...common,
    ...access,
    database,
    socket: { ...socket, host, port, ...nameOf(host) },
  };
  return createClient({ ...own, scripts }) as unknown as Client;
}

const accessOf = ({ username, password }: Pick<RedisNode, 'username' | 'password'>) => ({
  ...(username === '' ? {} : { username }),
  ...(password === '' ? {} : { password }),
});

function destroy(client: Client): void {
  // One that never connected complains.
  try {
    void Promise.resolve(client.destroy()).catch(() => {});
  } catch {}
}

/** Rejects when it takes longer; an answer that has come by then, and was not read, still counts. */
function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(new LateError(`no answer within ${ms} ms`));
    const timer = setTimeout(() => setImmediate(() => setImmediate(late)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
