/** The official OpenAI client against the gateway over simulated replicas, on both engines. */
import { createHash } from 'node:crypto';
import OpenAI, {
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  RateLimitError,
} from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { naturalLength, renderChat, tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { cancelMsMax, collect, openaiCases, openaiClient, post } from '../support/openai-cases.ts';
import { replicaInProcess } from '../support/replica.ts';
import { eventually } from '../support/until.ts';

const model = 'sim';
/** A model of one replica that takes one request, and no queue. */
const narrowModel = 'sim-narrow';
const keyedModel = 'sim-keyed';
const deadModel = 'sim-dead';
const replicaKey = 'sk-of-the-gateway';
const clientKey = 'sk-of-the-client';

describe.each(testEngines)('the openai client over the %s engine', (engine) => {
  const replicas: Replica[] = [];
  let gateway: GatewayProcess;
  let client: OpenAI;
  let narrow: Replica;
  let keyed: Replica;

  beforeAll(async () => {
    const profile = 'tokens:ttft=2ms,itl=1ms';
    for (const name of ['a', 'b']) replicas.push(await replicaInProcess({ name, profile, model }));
    narrow = await replicaInProcess({ name: 'narrow', profile, model });
    keyed = await replicaInProcess({ name: 'keyed', profile, model, apiKey: replicaKey });
    const dead = await replicaInProcess();
    await dead.close();
    const urls = replicas.map(({ url }) => ({ url }));
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        queue: { max: 0 },
        health: { interval: '200ms', timeout: '200ms' },
        models: [
          { name: model, aliases: ['gpt-4o-mini'], replicas: urls },
          { name: narrowModel, replicas: [{ url: narrow.url, max_in_flight: 1 }] },
          { name: keyedModel, replicas: [{ url: keyed.url, api_key: replicaKey }] },
          { name: deadModel, replicas: [{ url: dead.url }] },
        ],
      },
    });
    client = openaiClient(gateway);
  });

  afterAll(async () => {
    await gateway?.close();
    for (const replica of [...replicas, narrow, keyed]) await replica?.close();
  });

  const running = (): number => {
    return replicas.reduce((sum, replica) => sum + replica.stats().in_flight, 0);
  };

  /** Every attempt of a nonce, on whichever replica. */
  const attempts = (nonce: string) => replicas.flatMap((replica) => replica.ledger(nonce));

  openaiCases(() => ({
    gateway,
    model,
    embeddingModel: model,
    repeatable: {},
    hearsLeaving: 'always',
    long: { max_tokens: 10_000, ignore_eos: true },
    running,
  }));

  describe('every byte', () => {
    test('a chat is exactly what the replica says, whole and streamed', async () => {
      const content = 'nonce=exact [[utf8]] tell me';
      const messages = [{ role: 'user' as const, content }];
      const whole = await client.chat.completions.create({ model, messages });
      const stream = await client.chat.completions.create({ model, messages, stream: true });
      const chunks = await collect(stream);
      expect(whole.choices[0]?.message.content).toBe(answerTo(content));
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
      expect(text).toBe(answerTo(content));
      // Nothing was asked for, so nothing is added.
      expect(chunks.every((chunk) => (chunk.usage ?? undefined) === undefined)).toBe(true);
    });

    test('several choices keep apart, whole and streamed', async () => {
      const content = 'nonce=choices [[len=20]]';
      const body = { model, messages: [{ role: 'user' as const, content }], n: 3 };
      const wanted = [0, 1, 2].map((choice) => answerTo(content, choice, 20));
      const whole = await client.chat.completions.create(body);
      expect(whole.choices.map(({ message }) => message.content)).toEqual(wanted);
      const texts = ['', '', ''];
      const finishes: number[] = [];
      for await (const { choices } of await client.chat.completions.create({
        ...body,
        stream: true,
      })) {
        for (const { index, delta, finish_reason } of choices) {
          texts[index] += delta.content ?? '';
          if (finish_reason !== null) finishes.push(index);
        }
      }
      expect(texts).toEqual(wanted);
      expect(finishes.sort()).toEqual([0, 1, 2]);
    });

    test('a forced tool call passes through, whole and streamed', async () => {
      const content = 'nonce=tools [[len=8]]';
      const parameters = { type: 'object', properties: { echo: { type: 'string' } } };
      const body = {
        model,
        messages: [{ role: 'user' as const, content }],
        tools: [{ type: 'function' as const, function: { name: 'speak', parameters } }],
        tool_choice: { type: 'function' as const, function: { name: 'speak' } },
      };
      const wanted = { echo: answerTo(content, 0, 8) };
      const whole = await client.chat.completions.create(body);
      const call = whole.choices[0]?.message.tool_calls?.[0];
      expect(call?.type === 'function' && call.function.name).toBe('speak');
      expect(call?.type === 'function' && JSON.parse(call.function.arguments)).toEqual(wanted);
      const built = await client.chat.completions.stream(body).finalChatCompletion();
      const streamed = built.choices[0]?.message.tool_calls?.[0];
      expect(streamed?.type === 'function' && JSON.parse(streamed.function.arguments)).toEqual(
        wanted,
      );
      expect(whole.choices[0]?.finish_reason).toBe('tool_calls');
      expect(built.choices[0]?.finish_reason).toBe('tool_calls');
    });

    test('unknown fields, odd spacing and big numbers reach the replica as they are', async () => {
      const body = `{ "model" : "gpt-4o-mini",\n\t"seed":9223372036854775807, "top_k": 1e2,
        "messages":[{"role":"user","content":"nonce=bytes caf\\u00e9 \u{1f600} \\ud83d\\ude00"}],
        "chat_template_kwargs":{"enable_thinking":false}, "max_tokens": 3.0, "é":[1.50,-0] }`;
      const answer = await post(gateway, '/v1/chat/completions', body);
      expect(answer.status).toBe(200);
      const [attempt, ...more] = attempts('bytes');
      expect(more).toEqual([]);
      expect(attempt?.bodySha256).toBe(sha256(body));
    });

    test('fields that only the client library adds are not lost', async () => {
      const sent: string[] = [];
      const recording = clientWith(gateway, { onRequest: (body) => sent.push(body) });
      const messages = [{ role: 'user' as const, content: 'nonce=extra [[len=2]]' }];
      const extra = { guided_json: { type: 'object' }, repetition_penalty: 1.05 };
      await recording.chat.completions.create({ model, messages, ...extra });
      expect(sent[0]).toContain('"guided_json"');
      expect(attempts('extra')[0]?.bodySha256).toBe(sha256(sent[0] ?? ''));
    });

    test('a prompt of a megabyte reaches the replica whole', async () => {
      const sent: string[] = [];
      const recording = clientWith(gateway, { onRequest: (body) => sent.push(body) });
      const content = `nonce=large [[len=4]] ${'ocean é '.repeat(130_000)}`;
      const messages = [{ role: 'user' as const, content }];
      const answer = await recording.chat.completions.create({ model, messages });
      expect(answer.choices[0]?.message.content).toBe(answerTo(content, 0, 4));
      const [attempt] = attempts('large');
      expect(attempt?.bodyBytes).toBeGreaterThan(1024 * 1024);
      expect(attempt?.bodySha256).toBe(sha256(sent[0] ?? ''));
    });

    test('an answer through the gateway has the bytes of a direct one', async () => {
      const body = JSON.stringify({ model, input: ['a', 'b'], encoding_format: 'float' });
      const direct = await fetch(`${replicas[0]?.url}/v1/embeddings`, { method: 'POST', body });
      const through = await post(gateway, '/v1/embeddings', body);
      expect(await through.text()).toBe(await direct.text());
      expect(through.headers.get('content-type')).toBe(direct.headers.get('content-type'));
    });
  });

  describe('leaving', () => {
    test.each([true, false])(
      'before the first token, streamed %s, reaches the replica',
      async (stream) => {
        const nonce = `leave-${stream}`;
        const content = `nonce=${nonce} [[hold]]`;
        const controller = new AbortController();
        const answer = client.chat.completions.create(
          { model, messages: [{ role: 'user', content }], stream },
          { signal: controller.signal },
        );
        const failure = expect(answer).rejects.toThrow(APIUserAbortError);
        await eventually('a replica holds it', () => attempts(nonce).length === 1);
        const left = nowMs();
        controller.abort();
        await failure;
        await eventually('it is aborted', () => attempts(nonce)[0]?.end === 'aborted');
        expect((attempts(nonce)[0]?.abortAt ?? 0) - left).toBeLessThanOrEqual(cancelMsMax);
        expect(attempts(nonce)).toHaveLength(1);
      },
    );
  });

  describe('failures', () => {
    const ask = (name: string, content: string, options: OpenAI.RequestOptions = {}) =>
      client.chat.completions
        .create({ model: name, messages: [{ role: 'user', content }] }, options)
        .then(() => undefined)
        .catch((reason: unknown) => reason);

    test('a full queue is a rate limit that says when to come back', async () => {
      const first = ask(narrowModel, '[[hold]]');
      await narrow.gate.arrivals(1);
      const error = await ask(narrowModel, 'second');
      narrow.gate.release();
      expect(error).toBeInstanceOf(RateLimitError);
      expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'requests' });
      expectRetryAdvice(error);
      expect(await first).toBeUndefined();
    });

    test('no replica is an overload that says when to come back', async () => {
      await eventually('the dead replica is out', async () => {
        return (await gateway.cluster()).replicas.some((r) => r.model === deadModel && !r.healthy);
      });
      const error = await ask(deadModel, 'hello');
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 503, code: 'no_replica', type: 'overloaded' });
      expectRetryAdvice(error);
    });

    test('a replica that fails before its first byte is a bad gateway once all were asked', async () => {
      const error = await ask(model, 'nonce=failing [[fault:status=500]]');
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({
        status: 502,
        type: 'server_error',
        code: 'all_attempts_failed',
      });
      expect(replicas.map((replica) => replica.ledger('failing').length)).toEqual([1, 1]);
    });

    test('an answer cut short is a failure, never a short answer', async () => {
      const error = await ask(model, 'nonce=short [[len=20]] [[fault:fin-after=5]]');
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 502 });
    });

    test('what the replica finds wrong with a request is told as it said it', async () => {
      const error = await client.chat.completions
        .create({ model, messages: [] })
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(BadRequestError);
      expect((error as BadRequestError).message).toBe(
        '400 messages must be a list that is not empty',
      );
    });

    test('a deadline of the client ends the request at the replica too', async () => {
      const headers = { 'x-sluice-deadline-ms': '60' };
      const error = await ask(model, 'nonce=deadline [[hold]]', { headers });
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 504, code: 'deadline_exceeded', type: 'timeout' });
      await eventually('it is aborted', () => attempts('deadline')[0]?.end === 'aborted');
    });

    test.each([
      'fin-after=3',
      'reset-after=3',
      'truncate-chunk=3',
      'fin-after=3;mid-event',
      'error-event=3',
    ])('a stream broken by %s is an error behind an exact prefix', async (fault) => {
      const content = `[[len=20]] [[fault:${fault}]]`;
      const messages = [{ role: 'user' as const, content }];
      const stream = await client.chat.completions.create({ model, messages, stream: true });
      let text = '';
      let finished = false;
      const reading = (async () => {
        for await (const { choices } of stream) {
          text += choices[0]?.delta.content ?? '';
          finished ||= choices[0]?.finish_reason === 'stop';
        }
      })();
      const error = await reading.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(APIError);
      expect((error as APIError).code).toMatch(/^(truncated_stream|replica_error_event)$/);
      expect(text).toBe(answerTo(content, 0, 3));
      expect(finished).toBe(false);
    });
  });

  test('a broken stream costs the next request nothing, though it may share its connection', async () => {
    const broken = [{ role: 'user' as const, content: '[[len=9]] [[fault:fin-after=3]]' }];
    const whole = [{ role: 'user' as const, content: '[[len=1]]' }];
    for (let i = 0; i < 30; i++) {
      const stream = await client.chat.completions.create({
        model,
        messages: broken,
        stream: true,
      });
      await expect(collect(stream)).rejects.toThrow(APIError);
      const answer = await client.chat.completions.create({ model, messages: whole });
      expect(answer.choices[0]?.finish_reason).toBe('stop');
    }
  });

  describe('keys', () => {
    test('the key of the client reaches a replica that has none of its own', async () => {
      const messages = [{ role: 'user' as const, content: 'nonce=plain [[len=2]]' }];
      await client.chat.completions.create({ model, messages });
      expect(attempts('plain')[0]?.head).toContain(`authorization: Bearer ${clientKey}`);
    });

    test('a key of the client that the replicas refuse is told to the client', async () => {
      const content = 'nonce=refused [[fault:status=401]]';
      const error = await client.chat.completions
        .create({ model, messages: [{ role: 'user', content }] })
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(AuthenticationError);
      expect(error).toMatchObject({ status: 401, code: 'invalid_api_key' });
      expect(attempts('refused')).toHaveLength(2);
    });

    test('a key of the gateway that a replica refuses is no matter of the client', async () => {
      const content = '[[fault:status=401]]';
      const error = await client.chat.completions
        .create({ model: keyedModel, messages: [{ role: 'user', content }] })
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 502, code: 'replica_unauthorized' });
    });

    test('the configured key takes the place of the key of the client', async () => {
      const messages = [{ role: 'user' as const, content: 'nonce=keyed [[len=2]]' }];
      await client.chat.completions.create({ model: keyedModel, messages });
      const head = keyed.ledger('keyed')[0]?.head ?? '';
      expect(head).toContain(`authorization: Bearer ${replicaKey}`);
      expect(head).not.toContain(clientKey);
      expect(gateway.output()).not.toContain(replicaKey);
    });
  });

  describe('retries of the client', () => {
    test('wait as long as retry-after-ms says, and then succeed', async () => {
      const calls: { start: number; end: number; status: number; retryAfterMs: number }[] = [];
      const retrying = clientWith(gateway, {
        maxRetries: 1,
        onResponse: (response, start) => {
          const retryAfterMs = Number(response.headers.get('retry-after-ms'));
          calls.push({ start, end: nowMs(), status: response.status, retryAfterMs });
          if (response.status === 429) narrow.gate.release();
        },
      });
      const first = client.chat.completions.create({
        model: narrowModel,
        messages: [{ role: 'user', content: '[[hold]]' }],
      });
      await narrow.gate.arrivals(1);
      const content = 'nonce=again [[len=5]]';
      const second = await retrying.chat.completions.create({
        model: narrowModel,
        messages: [{ role: 'user', content }],
      });
      await first;
      expect(second.choices[0]?.message.content).toBe(answerTo(content, 0, 5));
      expect(calls.map(({ status }) => status)).toEqual([429, 200]);
      const [refused, served] = calls;
      expect(refused?.retryAfterMs).toBeGreaterThan(0);
      expect((served?.start ?? 0) - (refused?.end ?? 0)).toBeGreaterThanOrEqual(
        refused?.retryAfterMs ?? Number.NaN,
      );
      // The first try never reached a replica.
      expect(narrow.ledger('again')).toHaveLength(1);
    });
  });
});

/** What a simulated replica answers to a chat of one user message. */
function answerTo(content: string, choice = 0, length?: number): string {
  const prompt = renderChat([{ role: 'user', content }]);
  const series = tokenSeries(prompt, choice);
  return tokensText(series, 0, length ?? naturalLength(series));
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function expectRetryAdvice(error: unknown): void {
  const { headers } = error as APIError;
  const ms = Number(headers?.get('retry-after-ms'));
  expect(ms).toBeGreaterThan(0);
  expect(Number(headers?.get('retry-after'))).toBe(Math.ceil(ms / 1000));
  expect((error as APIError).requestID).toMatch(/^[0-9a-f-]{36}$/);
}

interface Watch {
  readonly maxRetries?: number;
  readonly onRequest?: (body: string) => void;
  readonly onResponse?: (response: Response, start: number) => void;
}

/** A client whose requests and answers are seen as they cross the wire. */
function clientWith(
  gateway: GatewayProcess,
  { maxRetries = 0, onRequest, onResponse }: Watch,
): OpenAI {
  return new OpenAI({
    baseURL: `${gateway.url}/v1`,
    apiKey: clientKey,
    maxRetries,
    fetch: async (url, init) => {
      const start = nowMs();
      if (typeof init?.body === 'string') onRequest?.(init.body);
      const response = await fetch(url, init);
      onResponse?.(response, start);
      return response;
    },
  });
}
