/**
 * The store of shared limits: one Redis server, a cluster, or whichever server Sentinel calls the master.
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
import { answeringNodes, parseNodes, type RedisNode } from './redis-nodes.ts';
import { type BucketAnswer, type BucketCall, bucketScript } from './script.ts';
import { LateError, RefusedError, type Store } from './store.ts';

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

/** Of one node, and of all that it takes. No request waits for a connection. */
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

const take = defineScript({
  SCRIPT: bucketScript,
  parseCommand(parser: RedisParser, calls: readonly BucketCall[]): void {
    parser.push(String(calls.length));
    for (const { key } of calls) parser.pushKey(key);
    for (const { rate, burst, charge, refund, need, want } of calls) {
      for (const value of [rate, burst, charge, refund, need, want]) parser.push(String(value));
    }
  },
  transformReply: (reply: unknown): unknown => reply,
});
const scripts = { take };

interface Client {
  connect(): Promise<unknown>;
  destroy(): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  take(calls: readonly BucketCall[]): Promise<unknown>;
}

export class RedisStore implements Store {
  readonly #options: RedisOptions;
  readonly #nodes: readonly RedisNode[];
  #client: Client | undefined;

  constructor(options: RedisOptions) {
    this.#options = options;
    this.#nodes = parseNodes(options.urls);
  }

  async connect(): Promise<void> {
    if (this.#client !== undefined) return;
    const nodes = await answeringNodes(this.#nodes, connectTimeoutMs);
    const client = createRedis(this.#options, nodes);
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

  async take(calls: readonly BucketCall[]): Promise<BucketAnswer[]> {
    const client = this.#client;
    if (client === undefined) throw new Error('no connection');
    try {
      return parseAnswers(await within(this.#options.timeoutMs, client.take(calls)), calls.length);
    } catch (error) {
      if (!(error instanceof ErrorReply)) throw error;
      throw notServing.test(error.message) ? error : new RefusedError(error.message);
    }
  }

  close(): void {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) destroy(client);
  }
}

function createRedis(options: RedisOptions, nodes: readonly RedisNode[]): Client {
  const { mode, master, username, password } = options;
  const isTls = nodes.some((node) => node.isTls);
  const socket = {
    ...{ connectTimeout: connectTimeoutMs, socketTimeout: silentMsMax },
    ...{ reconnectStrategy: false as const },
    ...(isTls ? { tls: true as const } : {}),
  };
  // Nothing waits for a connection: what cannot be sent fails.
  const common = { socket, pingInterval: pingMs, disableOfflineQueue: true };
  const ownNode = nodes[0] as RedisNode;
  const access = accessOf({
    username: username || (mode === 'sentinel' ? '' : ownNode.username),
    password: password || (mode === 'sentinel' ? '' : ownNode.password),
  });
  if (mode === 'cluster') {
    const rootNodes = nodes.map(({ host, port }) => {
      return { ...common, ...access, socket: { ...socket, host, port } };
    });
    const defaults = { ...common, ...access };
    return createCluster({ rootNodes, defaults, scripts }) as unknown as Client;
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
  const own = { ...common, ...access, database, socket: { ...socket, host, port } };
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

function parseAnswers(reply: unknown, count: number): BucketAnswer[] {
  const values = Array.isArray(reply) ? reply.map(Number) : [];
  if (values.length !== 2 * count || values.some((value) => !Number.isFinite(value))) {
    throw new Error('Redis answered something else than the script does');
  }
  return Array.from({ length: count }, (_, i) => ({
    given: values[2 * i] as number,
    fullInUs: values[2 * i + 1] as number,
  }));
}

/** Rejects when it takes longer; an answer that has come by then, and was not read, still counts. */
function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(new LateError(`no answer within ${ms} ms`));
    const timer = setTimeout(() => setImmediate(() => setImmediate(late)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
