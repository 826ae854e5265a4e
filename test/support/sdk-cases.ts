/**
 * What every client library must meet with keys on, over simulated replicas and over a real engine: who is
 * let in, answers as the replica gives them, limits and their advice, leaving.
 */
import { afterEach, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import type { GatewayProcess } from './gateway.ts';
import { inTime } from './in-time.ts';
import { cancelMsMax } from './openai-cases.ts';
import { expectQuiet } from './quiet.ts';
import type { Ask, Sdk, SdkClient, Told } from './sdk.ts';
import { sdkAnthropic } from './sdk-anthropic.ts';
import { sdkLangchain } from './sdk-langchain.ts';
import { sdkOpenai } from './sdk-openai.ts';
import { sdkVercel } from './sdk-vercel.ts';
import { eventually } from './until.ts';

export const sdks: readonly Sdk[] = [
  sdkOpenai(),
  sdkAnthropic('x-api-key'),
  sdkAnthropic('authorization'),
  sdkVercel(),
  sdkLangchain(),
];

/** What stands behind the gateway, and who may ask it. */
export interface SdkSubject {
  readonly gateway: GatewayProcess;
  /** A replica of the model without the gateway, and the key it wants. */
  readonly direct: { readonly url: string; readonly key: string };
  readonly model: string;
  readonly embeddingModel: string;
  readonly keys: {
    /** May ask for everything. */
    readonly full: string;
    /** May ask for the model of embeddings only. */
    readonly narrow: string;
    /** Of a tenant whose bucket holds one request, and gets one in two seconds. */
    readonly limited: string;
    /** Of a tenant whose bucket holds ten tokens, and gets one in a minute. */
    readonly spent: string;
  };
  /** It calls the tool it has to call: where it does not, a library may refuse its answer. */
  readonly callsTools: boolean;
  /** Body fields that make two answers to one prompt the same. */
  readonly repeatable: Readonly<Record<string, unknown>>;
  /** Of an answer that takes seconds. */
  readonly long: Omit<Ask, 'model' | 'content'>;
  /** Requests the replicas work on at this moment. */
  running(): Promise<number> | number;
}

const outcomeOf = (answer: Promise<Told>): Promise<Told | string> =>
  answer.catch((reason: unknown) => `${reason}`);

/** One HTTP exchange of a client. */
export interface Exchange {
  readonly startMs: number;
  readonly endMs: number;
  readonly body: string;
  readonly response: Response;
}

/** Shows the exchanges of a client as they cross the wire, oldest first. */
export function watched(): { fetch: typeof fetch; exchanges: Exchange[] } {
  const exchanges: Exchange[] = [];
  return {
    exchanges,
    fetch: async (url, init) => {
      const startMs = nowMs();
      const response = await fetch(url, init);
      const body = typeof init?.body === 'string' ? init.body : '';
      exchanges.push({ startMs, endMs: nowMs(), body, response });
      return response;
    },
  };
}

export const failureOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(
    () => undefined,
    (reason: unknown) => reason,
  );

export function sdkCases(sdk: Sdk, subject: () => SdkSubject): void {
  afterEach(() => expectQuiet(subject().gateway));
  answerCases(sdk, subject);
  keyCases(sdk, subject);
  limitCases(sdk, subject);
  leavingCase(sdk, subject);
}

const clientOf = (sdk: Sdk, { gateway }: SdkSubject, key: string): SdkClient =>
  sdk.client({ url: gateway.url, key, maxRetries: 0 });

function answerCases(sdk: Sdk, subject: () => SdkSubject): void {
  test.each([false, true])('an answer is that of the replica, tool %s', async (withTool) => {
    const its = subject();
    const { model, repeatable: extra, direct, keys } = its;
    const ask: Ask = { model, content: 'Say something.', maxTokens: 24, extra, withTool };
    const through = clientOf(sdk, its, keys.full);
    const beside = sdk.client({ ...direct, maxRetries: 0 });
    for (const how of ['whole', 'streamed'] as const) {
      const told = await outcomeOf(through[how](ask));
      expect(told, how).toEqual(await outcomeOf(beside[how](ask)));
      if (typeof told === 'string') {
        expect([withTool, its.callsTools], told).toEqual([true, false]);
        continue;
      }
      expect(told.inputTokens, how).toBeGreaterThan(0);
      expect(told.outputTokens, how).toBeGreaterThan(0);
      expect(told.end, how).toBeDefined();
      expect(told.text !== '' || told.call !== undefined, how).toBe(true);
    }
  });

  test('pieces of a stream come one by one', async () => {
    const its = subject();
    const pieces: string[] = [];
    const { text } = await clientOf(sdk, its, its.keys.full).streamed({
      ...{ model: its.model, content: 'Say something.', maxTokens: 24, extra: its.repeatable },
      onText: (piece) => pieces.push(piece),
    });
    expect(pieces.length).toBeGreaterThan(3);
    expect(pieces.join('')).toBe(text);
  });

  test('models and embeddings, where the library knows them', async () => {
    const its = subject();
    const { model, embeddingModel, keys } = its;
    const full = clientOf(sdk, its, keys.full);
    const narrow = clientOf(sdk, its, keys.narrow);
    if (full.models !== undefined) {
      expect(await full.models()).toEqual(expect.arrayContaining([model, embeddingModel]));
      expect(await narrow.models?.()).toEqual([embeddingModel]);
      expect(await full.model?.(model)).toBe(model);
      expect(sdk.isRefusal(await failureOf(narrow.model!(model)), 404)).toBe(true);
    }
    const texts = ['a river', 'a mountain'];
    const vectors = await narrow.embed?.(embeddingModel, texts);
    if (vectors === undefined) return;
    expect(vectors).toHaveLength(2);
    const [, alone] = [texts, await narrow.embed?.(embeddingModel, ['a mountain'])];
    for (const [i, value] of (vectors[1] ?? []).entries()) {
      expect(value).toBeCloseTo(alone?.[0]?.[i] ?? Number.NaN, 5);
    }
  });
}

function keyCases(sdk: Sdk, subject: () => SdkSubject): void {
  test.each(['whole', 'streamed'] as const)('who is not let in, %s', async (how) => {
    const { gateway, model, keys } = subject();
    for (const [key, status] of [
      ['sk-of-nobody', 401],
      [keys.narrow, 403],
    ] as const) {
      const { fetch, exchanges } = watched();
      const client = sdk.client({ url: gateway.url, key, maxRetries: 2, fetch });
      const failure = await failureOf(client[how]({ model, content: 'x' }));
      expect(sdk.isRefusal(failure, status), `${failure}`).toBe(true);
      expect(`${failure}`).toMatch(status === 401 ? /API key is not known/ : /may not use/);
      // To come again would be of no use, and every library knows.
      expect(exchanges.map(({ response }) => response.status)).toEqual([status]);
    }
  });
}

function limitCases(sdk: Sdk, subject: () => SdkSubject): void {
  test('over a limit: it waits as long as it is told, and is served', async () => {
    const { gateway, model, keys } = subject();
    const { fetch, exchanges } = watched();
    const client = sdk.client({ url: gateway.url, key: keys.limited, maxRetries: 3, fetch });
    const ask: Ask = { model, content: 'x', maxTokens: 2 };
    await Promise.all([client.whole(ask), client.streamed(ask)]);
    const statuses = exchanges.map(({ response }) => response.status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(2);
    const refused = exchanges.filter(({ response }) => response.status === 429);
    expect(refused.length).toBeGreaterThan(0);
    // The bucket had one: whoever is refused comes again as the last.
    const { endMs, response } = refused.at(-1)!;
    const waitMs = Number(response.headers.get('retry-after-ms'));
    const toldMs = sdk.readsMilliseconds
      ? waitMs
      : 1000 * Number(response.headers.get('retry-after'));
    expect(waitMs).toBeGreaterThan(0);
    expect(exchanges.at(-1)!.startMs - endMs).toBeGreaterThanOrEqual(toldMs - 1);
  });

  test('over a limit for longer than anybody waits', async () => {
    const { gateway, model, keys } = subject();
    const { fetch, exchanges } = watched();
    const client = sdk.client({ url: gateway.url, key: keys.spent, maxRetries: 1, fetch });
    const ask: Ask = { model, content: 'x', maxTokens: 10, extra: { ignore_eos: true } };
    expect((await client.whole(ask)).outputTokens).toBeGreaterThan(0);
    const failure = await failureOf(client.whole({ ...ask, maxTokens: 500 }));
    expect(sdk.isRefusal(failure, 429), `${failure}`).toBe(true);
    const [, ...refused] = exchanges.map(({ response }) => response);
    expect(refused).toHaveLength(sdk.triesWhenSpent);
    for (const { status, headers } of refused) {
      expect([status, headers.get('x-should-retry')]).toEqual([429, 'false']);
    }
  });
}

function leavingCase(sdk: Sdk, subject: () => SdkSubject): void {
  test('who leaves in the middle of a stream frees the replica', () =>
    inTime(cancelMsMax, async () => {
      const its = subject();
      const controller = new AbortController();
      let leftMs = 0;
      let pieces = 0;
      const answer = clientOf(sdk, its, its.keys.full).streamed({
        ...{ model: its.model, content: 'Say much.', ...its.long, signal: controller.signal },
        onText: () => {
          if (++pieces !== 3) return;
          leftMs = nowMs();
          controller.abort();
        },
      });
      expect(await failureOf(answer)).toBeInstanceOf(Error);
      expect(pieces).toBeGreaterThanOrEqual(3);
      await eventually('no replica works', async () => (await its.running()) === 0);
      return nowMs() - leftMs;
    }));
}
