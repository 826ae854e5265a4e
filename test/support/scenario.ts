/**
 * Parts of whole-gateway tests: replicas in this process, requests as a client sends them, load with
 * the project's own generator. Nothing here knows what a test wants to prove.
 */
import { expect } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { type LoadPlan, type LoadResult, runLoad } from '../../src/load/generator.ts';
import { createRequestTemplate } from '../../src/load/request-template.ts';
import type { Replica, ReplicaOptions } from '../../src/replica/replica.ts';
import { renderChat, type TokenSeries, tokenSeries } from '../../src/replica/tokens.ts';
import type { GatewayProcess } from './gateway.ts';
import type { Family } from './prometheus-text.ts';
import { replicaInProcess } from './replica.ts';

export const model = 'm';
export const chatPath = '/v1/chat/completions';

/** Runs `use` with replicas that are gone afterwards. */
export async function withReplicas<T>(
  count: number,
  options: ReplicaOptions,
  use: (replicas: readonly Replica[]) => Promise<T>,
): Promise<T> {
  return withEach(
    Array.from({ length: count }, () => options),
    use,
  );
}

/** The same with replicas of these names, which tags of prompts may name. */
export function withNamedReplicas<T>(
  names: readonly string[],
  use: (replicas: readonly Replica[]) => Promise<T>,
): Promise<T> {
  return withEach(
    names.map((name) => ({ name })),
    use,
  );
}

async function withEach<T>(
  options: readonly ReplicaOptions[],
  use: (replicas: readonly Replica[]) => Promise<T>,
): Promise<T> {
  const replicas = await Promise.all(
    options.map((ofOne, i) => replicaInProcess({ seed: i + 1, ...ofOne })),
  );
  try {
    return await use(replicas);
  } finally {
    await Promise.all(replicas.map((replica) => replica.close()));
  }
}

interface Addressed {
  readonly url: string;
}

type ModelInput = ConfigInput['models'][number];

/** A config of one model over the replicas, named r1, r2, … */
export function configOf(
  replicas: readonly Addressed[],
  more: Omit<ConfigInput, 'models'> = {},
  ofModel: Partial<ModelInput> = {},
): ConfigInput {
  const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}` }));
  return { ...more, models: [{ name: model, replicas: rows, ...ofModel }] };
}

/** Probes ten times as often as by default, so that a test need not wait for seconds. */
export const quickHealth = { interval: '500ms', timeout: '500ms' } as const;

export function chatBody(prompt: string, more: object = {}): object {
  return { model, messages: [{ role: 'user', content: prompt }], ...more };
}

/** What the replica must say to `chatBody(prompt)`. */
export function chatSeries(prompt: string): TokenSeries {
  return tokenSeries(renderChat([{ role: 'user', content: prompt }]));
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** One request; resolves with the whole answer. */
export async function post(
  url: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
  path = chatPath,
): Promise<Answer> {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** A stream that is read as it comes. */
export interface Reading {
  readonly status: number;
  readonly headers: Headers;
  /** Everything so far. */
  readonly text: () => string;
  /** Resolves once the text is as wanted; rejects when the stream ends before. */
  until(wanted: (text: string) => boolean): Promise<void>;
  /** Resolves with all of it; `cut` says that it did not end by its framing. */
  readonly ended: Promise<{ text: string; cut: boolean; ms: number }>;
}

/** A body that is a text goes out as it is. */
export async function openStream(
  url: string,
  body: object | string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Reading> {
  const response = await fetch(url + chatPath, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify({ stream: true, ...body }),
  });
  const decoder = new TextDecoder();
  let text = '';
  let over = false;
  let wake: () => void = () => {};
  const read = async (): Promise<{ text: string; cut: boolean; ms: number }> => {
    let cut = false;
    try {
      for await (const chunk of response.body ?? []) {
        text += decoder.decode(chunk as Uint8Array, { stream: true });
        wake();
      }
    } catch {
      cut = true;
    }
    over = true;
    wake();
    return { text, cut, ms: performance.now() };
  };
  const ended = read();
  return {
    status: response.status,
    headers: response.headers,
    text: () => text,
    ended,
    async until(wanted) {
      while (!wanted(text)) {
        if (over) throw new Error(`the stream ended before: ${text.slice(-400)}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

/** Data lines of a stream. */
export const countEvents = (text: string): number => text.split('\n\n').length - 1;

/** Load on a gateway or replica with the classic body; a closed loop unless a rate is given. */
export function load(target: Addressed, changes: Partial<LoadPlan> = {}): Promise<LoadResult> {
  const url = new URL(target.url);
  const stream = changes.stream === true;
  const template = createRequestTemplate(
    {
      ...{ endpoint: chatPath, model, stream, inputTokens: 0, promptBytes: 0 },
      ...{ outputTokens: 16, ignoreEos: false, seed: 1 },
    },
    url.host,
  );
  return runLoad({
    targets: [{ host: url.hostname, port: Number(url.port) }],
    template,
    stream,
    ...{ requestRate: Number.POSITIVE_INFINITY, burstiness: 1, connections: 16 },
    ...{ concurrencyMax: changes.connections ?? 16, durationMs: Number.POSITIVE_INFINITY },
    ...{ requestsMax: Number.POSITIVE_INFINITY, warmupMs: 0, timeoutMs: 20_000, seed: 1 },
    ...{ idPrefix: `scenario-${performance.now().toString(36)}`, expectTokens: -1, goodput: {} },
    ...changes,
  });
}

/** Sum of the samples of a family whose labels hold all of the given ones. */
export function total(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const base = name.replace(/_(bucket|sum|count)$/, '');
  const family = families.get(name) ?? families.get(base);
  if (family === undefined) throw new Error(`no metric ${name}`);
  let sum = 0;
  for (const [key, value] of family.samples) {
    if (!key.startsWith(`${name}{`)) continue;
    if (Object.entries(labels).every(([label, v]) => key.includes(`${label}="${v}"`))) sum += value;
  }
  return sum;
}

export const servedBy = (replicas: readonly Replica[]): number[] =>
  replicas.map((replica) => replica.stats().served);

export const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

/** WA-1: every request reached exactly one replica exactly once. */
export function expectServedOnce(replicas: readonly Replica[], requests: number): void {
  expect(sum(servedBy(replicas))).toBe(requests);
  for (const replica of replicas) {
    expect(replica.stats()).toMatchObject({ ids_repeated: 0, failed: 0, aborted: 0 });
  }
}

/** Upper bound of the bucket that holds the quantile, in seconds. */
export function quantileBucket(
  families: ReadonlyMap<string, Family>,
  name: string,
  quantile: number,
): { lower: number; upper: number } {
  const buckets = new Map<number, number>();
  for (const [key, value] of families.get(name)?.samples ?? []) {
    const bound = /_bucket\{.*le="([^"]+)"/.exec(key)?.[1];
    if (bound === undefined) continue;
    const upper = bound === '+Inf' ? Number.POSITIVE_INFINITY : Number(bound);
    buckets.set(upper, (buckets.get(upper) ?? 0) + value);
  }
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const rank = quantile * (sorted.at(-1)?.[1] ?? 0);
  const at = sorted.findIndex(([, count]) => count >= rank);
  return { lower: sorted[at - 1]?.[0] ?? 0, upper: sorted[at]?.[0] ?? 0 };
}

/** Resolves once the replica of that name is seen as wanted. */
export async function untilReplica(
  gateway: GatewayProcess,
  name: string,
  wanted: (replica: { healthy: boolean; state: string; in_flight: number }) => boolean,
  withinMs = 10_000,
): Promise<number> {
  const started = performance.now();
  for (;;) {
    const { replicas } = await gateway.cluster();
    const replica = replicas.find((row) => row.name === name);
    if (replica !== undefined && wanted(replica)) return performance.now() - started;
    if (performance.now() - started > withinMs) {
      throw new Error(`${name} after ${withinMs} ms: ${JSON.stringify(replica)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
