/**
 * The store of shared limits: one Redis server, a cluster, or whichever server Sentinel calls the master.
 *
 * A call is answered within the time limit or fails. A connection that failed, or that its owner closes, is
 * never used again: what it still owes is not waited for, and nothing is sent later that was asked earlier.
 */
import { createClient, createCluster, createSentinel, defineScript } from '@redis/client';
import { type BucketAnswer, type BucketCall, bucketScript } from './script.ts';
import { LateError, type Store } from './store.ts';

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

/** A connection is opened beside the requests: none waits for it. */
const connectTimeoutMs = 1000;

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
  #client: Client | undefined;

  constructor(options: RedisOptions) {
    this.#options = options;
  }

  async connect(): Promise<void> {
    if (this.#client !== undefined) return;
    const client = createRedis(this.#options);
    // Commands tell of every failure themselves.
    client.on('error', () => {});
    try {
      await within(connectTimeoutMs, client.connect());
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
      if (!(error instanceof LateError)) this.close(client);
      throw error;
    }
  }

  close(client = this.#client): void {
    if (client === undefined) return;
    if (client === this.#client) this.#client = undefined;
    destroy(client);
  }
}

function createRedis({ mode, urls, master, username, password }: RedisOptions): Client {
  const socket = { connectTimeout: connectTimeoutMs, reconnectStrategy: false } as const;
  const access = {
    ...(username === '' ? {} : { username }),
    ...(password === '' ? {} : { password }),
  };
  // Nothing waits for a connection: what cannot be sent fails.
  const common = { socket, disableOfflineQueue: true, ...access };
  const rootNodes = urls.map((url) => ({ url, ...common }));
  if (mode === 'cluster') {
    return createCluster({ rootNodes, defaults: common, scripts }) as unknown as Client;
  }
  if (mode === 'sentinel') {
    const sentinelRootNodes = urls.map((text) => {
      const { hostname, port } = new URL(text);
      return { host: hostname, port: Number(port || 26_379) };
    });
    const isTls = urls.some((url) => url.startsWith('rediss:'));
    const nodes = { ...common, socket: isTls ? { ...socket, tls: true as const } : socket };
    return createSentinel({
      name: master,
      sentinelRootNodes,
      nodeClientOptions: nodes,
      sentinelClientOptions: { socket: nodes.socket },
      maxCommandRediscovers: 1,
      scripts,
    }) as unknown as Client;
  }
  return createClient({ url: urls[0] as string, ...common, scripts }) as unknown as Client;
}

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
