import { createHash } from 'node:crypto';
import OpenAI from 'openai';
import { expect, test } from 'vitest';
import type { Replica, ReplicaOptions } from '../../src/replica/replica.ts';
import { renderChat, tokenId, tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { closedAfterEach } from '../support/closing.ts';
import { RawClient, rawPost, rawRequest } from '../support/raw-client.ts';
import { replicaInProcess, replicaProcess } from '../support/replica.ts';
import { readSse } from '../support/sse-ledger.ts';

const closing = closedAfterEach();

async function start(options: ReplicaOptions = {}): Promise<Replica> {
  const replica = await replicaInProcess(options);
  closing.push(replica);
  return replica;
}

const messages = [{ role: 'user' as const, content: 'hello nonce=N1' }];
const series = tokenSeries(renderChat(messages));
const chat = (extra: object): string =>
  rawPost('/v1/chat/completions', { model: 'm', messages, ...extra });

test('the official client gets the predicted tokens, streaming and not', async () => {
  const replica = await start();
  const client = new OpenAI({ baseURL: `${replica.url}/v1`, apiKey: 'k', maxRetries: 0 });
  const whole = await client.chat.completions.create({ model: 'm', messages, max_tokens: 5 });
  expect(whole.choices[0]?.message.content).toBe(tokensText(series, 0, 5));
  expect(whole.choices[0]?.finish_reason).toBe('length');
  expect(whole.usage?.completion_tokens).toBe(5);
  const options = { stream: true as const, stream_options: { include_usage: true } };
  let text = '';
  let usage: unknown;
  for await (const event of await client.chat.completions.create({
    model: 'm',
    messages,
    ...options,
  })) {
    text += event.choices[0]?.delta.content ?? '';
    usage = event.usage ?? usage;
  }
  const tokens = text.split(' ').length - 1;
  expect(text).toBe(tokensText(series, 0, tokens));
  expect(usage).toMatchObject({ completion_tokens: tokens });
  const vectors = await client.embeddings.create({ model: 'm', input: ['a', 'b'] });
  expect(vectors.data.map(({ embedding }) => embedding.length)).toEqual([8, 8]);
  expect(replica.stats()).toMatchObject({ started: 3, served: 3, in_flight: 0 });
});

test('a forced tool is called with arguments that echo the tokens', async () => {
  const replica = await start();
  const client = new OpenAI({ baseURL: `${replica.url}/v1`, apiKey: 'k', maxRetries: 0 });
  const tools = [{ type: 'function' as const, function: { name: 'find', parameters: {} } }];
  const request = { model: 'm', messages, tools, tool_choice: 'required' as const };
  const whole = await client.chat.completions.create(request);
  const call = whole.choices[0]?.message.tool_calls?.[0];
  const final = await client.chat.completions.stream(request).finalChatCompletion();
  const streamed = final.choices[0]?.message.tool_calls?.[0];
  if (call?.type !== 'function' || streamed?.type !== 'function') expect.fail('no call');
  expect(JSON.parse(call.function.arguments).echo).toMatch(/^ N1:0:/);
  expect(streamed.function.arguments).toBe(call.function.arguments);
  expect(final.choices[0]?.finish_reason).toBe('tool_calls');
});

test.each([
  ['/v1/chat/completions', { messages }],
  ['/v1/completions', { prompt: 'hello nonce=N1' }],
  ['/v1/messages', { messages }],
  ['/v1/responses', { input: 'hello nonce=N1' }],
])('a stream of %s is exact and ends properly', async (path, prompt) => {
  const replica = await start();
  const text = 'prompt' in prompt ? prompt.prompt : renderChat(messages);
  const { responses } = await rawRequest(
    replica.port,
    rawPost(path, { model: 'm', stream: true, ...prompt }),
  );
  const ledger = readSse(responses[0]?.body ?? Buffer.alloc(0), tokenSeries(text));
  expect(responses[0]?.complete).toBe(true);
  expect(ledger).toMatchObject({ exact: true, sawDone: true, duplicates: 0, gaps: 0, foreign: 0 });
  expect(ledger.tokens).toBeGreaterThanOrEqual(16);
  expect(ledger.malformed).toEqual([]);
});

test('chat, text and token ids continue at the right token on another replica', async () => {
  const replica = await start();
  const body = async (request: string): Promise<Buffer> =>
    (await rawRequest(replica.port, request)).responses[0]?.body ?? Buffer.alloc(0);
  const full = JSON.parse((await body(chat({ return_token_ids: true }))).toString());
  const total: number = full.usage.completion_tokens;
  const partial = { role: 'assistant', content: tokensText(series, 0, 3) };
  const again = chat({
    messages: [...messages, partial],
    stream: true,
    continue_final_message: true,
    add_generation_prompt: false,
  });
  expect(readSse(await body(again), series, 3)).toMatchObject({ exact: true, tokens: total - 3 });
  const ids = Array.from({ length: 3 }, (_, k) => tokenId(series, k));
  expect(full.choices[0].token_ids.slice(0, 3)).toEqual(ids);
  const prompt = [...full.prompt_token_ids, ...ids];
  const byIds = rawPost('/v1/completions', { model: 'm', prompt, stream: true, max_tokens: 2 });
  expect(readSse(await body(byIds), series, 3)).toMatchObject({ exact: true, tokens: 2 });
  const byText = rawPost('/v1/completions', {
    model: 'm',
    prompt: `hello nonce=N1${tokensText(tokenSeries('hello nonce=N1'), 0, 2)}`,
    stream: true,
  });
  const textSeries = tokenSeries('hello nonce=N1');
  expect(readSse(await body(byText), textSeries, 2)).toMatchObject({ exact: true, sawDone: true });
  expect(replica.stats()).toMatchObject({ continuations: 3, continuation_mismatches: 0 });
});

test('multi-byte tokens keep their length in both framings', async () => {
  const replica = await start();
  const utf8 = [{ role: 'user', content: 'é nonce=U [[utf8]]' }];
  const of = tokenSeries(renderChat(utf8));
  const whole = await rawRequest(replica.port, chat({ messages: utf8, model: 'Modèle' }));
  const answer = JSON.parse(whole.responses[0]?.body.toString() ?? '');
  expect(answer.choices[0].message.content).toBe(tokensText(of, 0, answer.usage.completion_tokens));
  expect(answer.model).toBe('Modèle');
  const stream = await rawRequest(replica.port, chat({ messages: utf8, stream: true }));
  expect(readSse(stream.responses[0]?.body ?? Buffer.alloc(0), of)).toMatchObject({ exact: true });
});

test('the replica proves which bytes arrived', async () => {
  const replica = await start();
  const odd = `{ "seed":9223372036854775807,"x":1e400, "messages":[{"role":"user","content":"\\ud800 [[sha]] nonce=B"}]}`;
  const { responses } = await rawRequest(
    replica.port,
    rawPost('/v1/chat/completions', odd, 'x-request-id: odd-1\r\n'),
  );
  const sha = createHash('sha256').update(odd).digest('hex');
  expect(responses[0]?.headers.get('x-replica-body-sha256')).toBe(sha);
  expect(replica.ledger('odd-1')).toMatchObject([{ bodySha256: sha, nonce: 'B', end: 'served' }]);
});

test('pipelined requests are answered in order and hidden ones are refused', async () => {
  const replica = await start({ profile: 'uniform:1ms-20ms' });
  const client = await RawClient.connect(replica.port);
  closing.push(client);
  const ids = ['a', 'b', 'c'];
  const posts = ids.map((id) =>
    rawPost('/v1/completions', { prompt: `nonce=${id}`, max_tokens: 1 }),
  );
  await client.send(posts.join(''));
  const { responses } = await client.responses(3);
  const texts = responses.map(({ body }) => JSON.parse(body.toString()).choices[0].text);
  expect(texts.map((text: string) => text.split(':')[0])).toEqual([' a', ' b', ' c']);
  const smuggled =
    posts[0]?.replace('content-length:', 'content-length: 0\r\ncontent-length:') ?? '';
  const refused = await rawRequest(replica.port, smuggled + posts[1]);
  expect(refused.responses.map(({ status }) => status)).toEqual([400]);
  expect(replica.stats()).toMatchObject({ started: 3, bad_requests: 1 });
});

test('the gate announces requests and keeps them, and abort leaves it', async () => {
  const replica = await start({ hold: true });
  const first = await RawClient.connect(replica.port);
  const second = await RawClient.connect(replica.port);
  closing.push(first, second);
  await first.send(chat({}));
  await second.send(chat({}));
  await replica.gate.arrivals(2);
  expect(first.received.length).toBe(0);
  first.reset();
  await replica.until(({ aborted }) => aborted === 1);
  expect(replica.stats()).toMatchObject({ held: 1, in_flight: 1 });
  replica.gate.release();
  expect((await second.responses()).responses[0]?.status).toBe(200);
  expect(replica.stats()).toMatchObject({ started: 2, served: 1, aborted: 1, in_flight: 0 });
});

test('a client that leaves mid-stream is seen, with the tokens it cost', async () => {
  const replica = await start({ profile: 'tokens:ttft=1ms,itl=1ms' });
  const client = await RawClient.connect(replica.port);
  await client.send(chat({ stream: true, max_tokens: 100_000, ignore_eos: true }));
  await client.until((received) => received.includes('N1:5:'));
  client.end();
  await replica.until(({ aborted }) => aborted === 1);
  await client.close();
  const [record] = replica.ledger('N1');
  expect(record?.tokens).toBeGreaterThan(5);
  expect(record?.abortAt).toBeGreaterThan(record?.start ?? Number.POSITIVE_INFINITY);
  expect(replica.stats()).toMatchObject({ running: 0, in_flight: 0 });
});

test('a client that does not read stops its own stream and no other', async () => {
  const replica = await start();
  const slow = await RawClient.connect(replica.port);
  closing.push(slow);
  slow.socket.pause();
  await slow.send(chat({ stream: true, max_tokens: 1_000_000, ignore_eos: true }));
  await replica.until(({ running }) => running === 1);
  const { responses } = await rawRequest(replica.port, chat({ max_tokens: 2 }));
  expect(responses[0]?.status).toBe(200);
  expect(replica.ledger('N1')[0]?.tokens).toBeLessThan(200_000);
});

test('requests over max_num_seqs wait in order and show as waiting', async () => {
  const replica = await start({ maxNumSeqs: 1 });
  const held = { messages: [{ role: 'user', content: '[[fault:hold-after=1]]' }] };
  const asked = chat({ ...held, stream: true, max_tokens: 2 });
  const both = [1, 2].map(() => rawRequest(replica.port, asked));
  await replica.until(({ running, waiting }) => running === 1 && waiting === 1);
  const metrics = await (await fetch(`${replica.url}/metrics`)).text();
  expect(metrics).toMatch(/^vllm:num_requests_running\{[^}]*\} 1$/m);
  expect(metrics).toMatch(/^vllm:num_requests_waiting\{[^}]*\} 1$/m);
  for (let i = 0; i < both.length; i++) {
    await replica.gate.arrivals(1);
    replica.gate.release();
  }
  for (const { responses } of await Promise.all(both)) expect(responses[0]?.status).toBe(200);
  expect(replica.stats()).toMatchObject({ running: 0, waiting: 0, served: 2 });
});

test('bad requests get the answers of the real API', async () => {
  const replica = await start({ strictModel: true, model: 'm', apiKey: 'secret' });
  const key = 'authorization: Bearer secret\r\n';
  const status = async (request: string): Promise<number | undefined> =>
    (await rawRequest(replica.port, request)).responses[0]?.status;
  expect(await status(chat({}))).toBe(401);
  const post = (body: unknown): string => rawPost('/v1/chat/completions', body, key);
  expect(await status(post({ model: 'm', messages }))).toBe(200);
  expect(await status(post({ model: 'other', messages }))).toBe(404);
  for (const bad of [
    '{',
    '[]',
    '{"messages":[]}',
    { messages, max_tokens: 0 },
    { messages, n: -1 },
  ]) {
    expect(await status(post(bad)), JSON.stringify(bad)).toBe(400);
  }
  expect(await status(rawPost('/nowhere', {}))).toBe(404);
});

test('an id that comes twice shows', async () => {
  const replica = await start();
  const post = rawPost(
    '/v1/completions',
    { prompt: 'x', max_tokens: 1 },
    'x-request-id: twice\r\n',
  );
  await rawRequest(replica.port, post);
  expect(replica.stats().ids_repeated).toBe(0);
  await rawRequest(replica.port, post);
  expect(replica.stats()).toMatchObject({ ids: 1, ids_repeated: 1, repeated: { twice: 2 } });
});

test('idle connections are closed after the keep-alive timeout', async () => {
  const replica = await start({ keepAliveTimeoutMs: 50 });
  const client = await RawClient.connect(replica.port);
  await client.send(chat({ max_tokens: 1 }));
  expect(await client.closed).toBe('fin');
  expect((await client.responses()).responses[0]?.complete).toBe(true);
});

test('a replica process announces itself, drains on SIGTERM and ends with 0', async () => {
  const replica = await replicaProcess({ hold: true, model: 'm' });
  closing.push(replica);
  const answer = rawRequest(replica.port, chat({ max_tokens: 2 }));
  await replica.arrivals(1);
  const ended = replica.terminate();
  while (await connects(replica.port)) await replica.stats();
  await replica.release();
  expect((await answer).responses[0]?.headers.get('connection')).toBeUndefined();
  expect((await answer).responses[0]?.complete).toBe(true);
  expect(await ended).toBe(0);
});

test('a replica process refuses connections and listens again on the same port', async () => {
  const replica = await replicaProcess();
  closing.push(replica);
  await replica.listen(false);
  expect(await connects(replica.port)).toBe(false);
  await replica.listen(true);
  expect(await connects(replica.port)).toBe(true);
});

async function connects(port: number): Promise<boolean> {
  const client = await RawClient.connect(port).catch(() => undefined);
  await client?.close();
  return client !== undefined;
}
