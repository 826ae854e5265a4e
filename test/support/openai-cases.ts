/**
 * What every OpenAI-compatible replica must look like through the gateway, as seen by the official
 * client. Registered once for simulated replicas and once for a real engine.
 */
import OpenAI, { APIUserAbortError, BadRequestError, NotFoundError } from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { expectQuiet, type GatewayProcess } from './gateway.ts';
import { inTime } from './in-time.ts';
import { eventually } from './until.ts';

/** What stands behind the gateway. */
export interface Subject {
  readonly gateway: GatewayProcess;
  readonly model: string;
  readonly embeddingModel: string;
  /** Body fields that make two answers to one prompt the same. */
  readonly repeatable: object;
  /** Body fields of an answer that takes seconds. */
  readonly long: object;
  /** When a replica notices that its connection was closed. */
  readonly hearsLeaving: 'always' | 'when it streams';
  /** Requests the replicas work on at this moment. */
  running(): Promise<number> | number;
}

/** A client gone must be gone at the replica in this time (issue 2, done when 6). */
export const cancelMsMax = 250;

const uuidv7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const prompt = 'Say something about rivers, please.';
const messages = [{ role: 'user' as const, content: prompt }];
const max_tokens = 24;

/** A client that shows every failure at once; retries have tests of their own. */
export function openaiClient(gateway: GatewayProcess): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-of-the-client', maxRetries: 0 });
}

/** A POST that no client library would send. */
export function post(gateway: GatewayProcess, path: string, body: string): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(gateway.url + path, { method: 'POST', headers, body });
}

/** Registers the cases; `subject` is asked when a test runs. */
export function openaiCases(subject: () => Subject): void {
  afterEach(() => expectQuiet(subject().gateway));
  describe('answers', () => answerCases(subject));
  describe('streams', () => streamCases(subject));
  describe('errors', () => errorCases(subject));
  describe('a client that leaves', () => abortCases(subject));
}

function answerCases(subject: () => Subject): void {
  test('a chat has text, a finish reason, usage and a request id', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, messages, max_tokens, ...repeatable };
    const { data, response, request_id } = await openaiClient(gateway)
      .chat.completions.create(body)
      .withResponse();
    expect(data.object).toBe('chat.completion');
    expect(data.choices).toHaveLength(1);
    expect(data.choices[0]?.message.role).toBe('assistant');
    expect(data.choices[0]?.message.content?.length).toBeGreaterThan(0);
    expect(data.choices[0]?.finish_reason).toMatch(/^(stop|length)$/);
    const { prompt_tokens, completion_tokens, total_tokens } = data.usage ?? {};
    expect(prompt_tokens).toBeGreaterThan(0);
    expect(completion_tokens).toBeLessThanOrEqual(max_tokens);
    expect(total_tokens).toBe((prompt_tokens ?? 0) + (completion_tokens ?? 0));
    expect(request_id).toMatch(uuidv7);
    expect(response.headers.get('x-sluice-replica')).toMatch(/^r\d$/);
    expect(response.headers.get('x-sluice-attempts')).toBe('1');
    expect(response.headers.get('server-timing')).toMatch(
      /^queue;dur=[\d.]+, pick;dur=[\d.]+, upstream;dur=[\d.]+$/,
    );
  });

  test('a valid request id of the client is kept', async () => {
    const { gateway, model, repeatable } = subject();
    const headers = { 'x-request-id': 'my.request-1' };
    const body = { model, messages, max_tokens: 2, ...repeatable };
    const answer = await openaiClient(gateway).chat.completions.create(body, { headers });
    expect(answer._request_id).toBe('my.request-1');
  });

  test('a completion has text and usage', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, prompt, max_tokens, ...repeatable };
    const answer = await openaiClient(gateway).completions.create(body);
    expect(answer.object).toBe('text_completion');
    expect(answer.choices[0]?.text.length).toBeGreaterThan(0);
    expect(answer.usage?.completion_tokens).toBeLessThanOrEqual(max_tokens);
  });

  test('embeddings come in the order of their inputs, and the same in both encodings', async () => {
    const { gateway, embeddingModel } = subject();
    const client = openaiClient(gateway);
    const input = ['a river', 'a mountain'];
    const request = { model: embeddingModel, input };
    // Without an encoding the client asks for base64 and decodes it.
    const decoded = await client.embeddings.create(request);
    const floats = await client.embeddings.create({ ...request, encoding_format: 'float' });
    const alone = await client.embeddings.create({ ...request, input: 'a mountain' });
    expect(decoded.data.map(({ index }) => index)).toEqual([0, 1]);
    expect(decoded.data[0]?.embedding.length).toBeGreaterThan(4);
    for (const [i, { embedding }] of decoded.data.entries()) {
      expectSameVector(embedding, floats.data[i]?.embedding ?? []);
    }
    expectSameVector(decoded.data[1]?.embedding ?? [], alone.data[0]?.embedding ?? []);
    expect(decoded.data[0]?.embedding).not.toEqual(decoded.data[1]?.embedding);
  });

  test('models are listed and found by name', async () => {
    const { gateway, model, embeddingModel } = subject();
    const client = openaiClient(gateway);
    const names: string[] = [];
    for await (const { id, object } of client.models.list()) {
      expect(object).toBe('model');
      names.push(id);
    }
    expect(names).toEqual(expect.arrayContaining([model, embeddingModel]));
    expect((await client.models.retrieve(model)).id).toBe(model);
  });

  test('a response of the Responses API has text', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, input: prompt, max_output_tokens: max_tokens, ...repeatable };
    const answer = await openaiClient(gateway).responses.create(body);
    expect(answer.object).toBe('response');
    expect(answer.output_text.length).toBeGreaterThan(0);
    expect(answer.usage?.output_tokens).toBeLessThanOrEqual(max_tokens);
  });

  test('a message of the Anthropic API has text', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, messages, max_tokens, ...repeatable };
    const answer = await post(gateway, '/v1/messages', JSON.stringify(body));
    const message = (await answer.json()) as { type: string; content: { text: string }[] };
    expect(answer.status).toBe(200);
    expect(answer.headers.get('request-id')).toMatch(uuidv7);
    expect(message.type).toBe('message');
    expect(message.content[0]?.text.length).toBeGreaterThan(0);
  });
}

function streamCases(subject: () => Subject): void {
  test('a streamed chat says what the whole answer says, with one finish and usage', async () => {
    const { gateway, model, repeatable } = subject();
    const client = openaiClient(gateway);
    const body = { model, messages, max_tokens, ...repeatable };
    const whole = await client.chat.completions.create(body);
    const { data: stream, response } = await client.chat.completions
      .create({ ...body, stream: true, stream_options: { include_usage: true } })
      .withResponse();
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect(response.headers.get('cache-control')).toContain('no-cache');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    const chunks = await collect(stream);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    expect(choices.map(({ delta }) => delta.content ?? '').join('')).toBe(
      whole.choices[0]?.message.content,
    );
    const finishes = choices.flatMap(({ finish_reason }) => finish_reason ?? []);
    expect(finishes).toEqual([whole.choices[0]?.finish_reason]);
    const usage = chunks.at(-1)?.usage;
    expect(usage?.completion_tokens).toBe(whole.usage?.completion_tokens);
    expect(usage?.prompt_tokens).toBe(whole.usage?.prompt_tokens);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  test('the stream helper of the client builds the whole answer', async () => {
    const { gateway, model, repeatable } = subject();
    const client = openaiClient(gateway);
    const body = { model, messages, max_tokens, ...repeatable };
    const whole = await client.chat.completions.create(body);
    const built = await client.chat.completions.stream(body).finalChatCompletion();
    expect(built.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    expect(built.choices[0]?.finish_reason).toBe(whole.choices[0]?.finish_reason);
  });

  test('a streamed completion says what the whole one says', async () => {
    const { gateway, model, repeatable } = subject();
    const client = openaiClient(gateway);
    const body = { model, prompt, max_tokens, ...repeatable };
    const whole = await client.completions.create(body);
    const chunks = await collect(await client.completions.create({ ...body, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0]?.text ?? '').join('');
    expect(text).toBe(whole.choices[0]?.text);
  });

  test('a streamed response of the Responses API completes with its deltas', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, input: prompt, max_output_tokens: max_tokens, ...repeatable };
    const stream = await openaiClient(gateway).responses.create({ ...body, stream: true });
    const events = await collect(stream);
    const text = events.map((e) => (e.type === 'response.output_text.delta' ? e.delta : ''));
    const done = events.find((e) => e.type === 'response.output_text.done');
    expect(text.join('').length).toBeGreaterThan(0);
    expect(done?.type === 'response.output_text.done' && done.text).toBe(text.join(''));
    expect(events.at(-1)?.type).toMatch(/^response\.(completed|incomplete)$/);
  });

  test('a streamed message of the Anthropic API ends with message_stop', async () => {
    const { gateway, model, repeatable } = subject();
    const body = { model, messages, max_tokens, stream: true, ...repeatable };
    const answer = await post(gateway, '/v1/messages', JSON.stringify(body));
    const text = await answer.text();
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect(text.match(/^event: message_start$/gm)).toHaveLength(1);
    expect(text.match(/^event: message_stop$/gm)).toHaveLength(1);
    expect(text.trimEnd()).toMatch(/data: \{"type":\s?"message_stop"\}$/);
  });
}

function errorCases(subject: () => Subject): void {
  test('an unknown model is not found, whatever the route', async () => {
    const { gateway } = subject();
    const client = openaiClient(gateway);
    const model = 'no-such-model';
    const attempts = [
      client.chat.completions.create({ model, messages }),
      client.chat.completions.create({ model, messages, stream: true }),
      client.completions.create({ model, prompt }),
      client.embeddings.create({ model, input: prompt }),
      client.responses.create({ model, input: prompt }),
      client.models.retrieve(model),
    ];
    for (const outcome of await Promise.allSettled(attempts)) {
      const error: unknown = outcome.status === 'rejected' ? outcome.reason : undefined;
      expect(error).toBeInstanceOf(NotFoundError);
      expect(error).toMatchObject({ status: 404, code: 'model_not_found', param: 'model' });
      expect((error as NotFoundError).requestID).toMatch(uuidv7);
    }
  });

  test('a parameter of the wrong type is a bad request that names it', async () => {
    const { gateway, model } = subject();
    const client = openaiClient(gateway);
    const wrong: readonly [param: string, value: unknown][] = [
      ['stream', 'yes'],
      ['max_tokens', 'many'],
      ['model', 5],
    ];
    for (const [param, value] of wrong) {
      const body = { model, messages, [param]: value } as never;
      const error = await client.chat.completions.create(body).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(BadRequestError);
      expect(error).toMatchObject({ status: 400, param, type: 'invalid_request_error' });
    }
  });

  test.each([
    ['cut short', (model: string) => `{"model":"${model}","messages":[`],
    ['with a trailing comma', (model: string) => `{"model":"${model}","messages":[],}`],
    ['followed by more', (model: string) => `{"model":"${model}","messages":[]} {}`],
    ['not JSON', () => 'model=x'],
    ['empty', () => ''],
  ])('a body %s is answered 400 by the gateway', async (_, body) => {
    const { gateway, model } = subject();
    const before = (await gateway.cluster()).dispatched;
    const answer = await post(gateway, '/v1/chat/completions', body(model));
    const { error } = (await answer.json()) as { error: { type: string; code: string } };
    expect(answer.status).toBe(400);
    expect(error).toMatchObject({ type: 'invalid_request_error', code: 'invalid_json' });
    expect((await gateway.cluster()).dispatched).toBe(before);
  });
}

function abortCases(subject: () => Subject): void {
  test('in the middle of a stream frees its replica at once', () =>
    inTime(cancelMsMax, async () => {
      const { gateway, model, long, running } = subject();
      const controller = new AbortController();
      const stream = await openaiClient(gateway).chat.completions.create(
        { model, messages, stream: true, ...long },
        { signal: controller.signal },
      );
      let seen = 0;
      let left = 0;
      for await (const chunk of stream) {
        expect(chunk.object).toBe('chat.completion.chunk');
        if (++seen !== 3) continue;
        left = nowMs();
        controller.abort();
      }
      expect(seen).toBeGreaterThanOrEqual(3);
      await noneInFlight(gateway);
      await eventually('no replica works', async () => (await running()) === 0);
      return nowMs() - left;
    }));

  test('before the whole answer frees its replica at once', { timeout: 90_000 }, () =>
    inTime(cancelMsMax, async () => {
      const { gateway, model, long, running, hearsLeaving } = subject();
      const controller = new AbortController();
      const answer = openaiClient(gateway).chat.completions.create(
        { model, messages, ...long },
        { signal: controller.signal },
      );
      const failure = expect(answer).rejects.toThrow(APIUserAbortError);
      await eventually('the replica works', async () => (await running()) === 1);
      const cancels = await cancelCounts(gateway);
      const left = nowMs();
      controller.abort();
      await failure;
      await noneInFlight(gateway);
      const freedMs = nowMs() - left;
      const { all, quick } = await cancelCounts(gateway);
      expect(all - cancels.all).toBe(1);
      // Who does not hear of it works on to the end of the answer.
      const hears = hearsLeaving === 'always';
      const limitMs = hears ? 5000 : 25_000;
      await eventually('no replica works', async () => (await running()) === 0, limitMs);
      // A cancel that the gateway itself found slow is none in time, however it looked from here.
      if (quick === cancels.quick) return Number.POSITIVE_INFINITY;
      return hears ? nowMs() - left : freedMs;
    }),
  );
}

/** The gateway has let go of the replica: nothing is in flight any more. */
function noneInFlight(gateway: GatewayProcess): Promise<void> {
  return eventually('nothing is in flight', async () => {
    return (await gateway.cluster()).replicas.every(({ in_flight }) => in_flight === 0);
  });
}

/** Clients gone whose replica connection was closed: all, and those closed within 100 ms. */
async function cancelCounts(gateway: GatewayProcess): Promise<{ all: number; quick: number }> {
  const samples = (await gateway.metrics()).get('sluice_cancel_seconds')?.samples;
  return {
    all: samples?.get('sluice_cancel_seconds_count{}') ?? Number.NaN,
    quick: samples?.get('sluice_cancel_seconds_bucket{le="0.1"}') ?? Number.NaN,
  };
}

function expectSameVector(a: readonly number[], b: readonly number[]): void {
  expect(a).toHaveLength(b.length);
  for (const [i, value] of a.entries()) expect(value).toBeCloseTo(b[i] ?? Number.NaN, 5);
}

export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
