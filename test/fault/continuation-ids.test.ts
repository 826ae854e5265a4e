/**
 * What only `continuation: token_ids` does, through a whole gateway: the ids are asked for, kept from
 * clients that did not ask, and given back to another replica as a completion; without them a stream
 * that breaks ends with an error event. What it has in common with text is in continuation.test.ts.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  promptTokenIds,
  renderChat,
  type TokenSeries,
  tokenId,
  tokenSeries,
  tokensText,
} from '../../src/replica/tokens.ts';
import { expectQuiet, type GatewayProcess, gatewayProcess } from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { post, total } from '../support/scenario.ts';

const tokens = 20;

interface Chunk {
  readonly id: string;
  readonly object: string;
  readonly prompt_token_ids?: number[];
  readonly usage?: { prompt_tokens: number; completion_tokens: number };
  readonly choices: readonly {
    readonly text?: string;
    readonly delta?: { readonly content?: string; readonly role?: string };
    readonly token_ids?: number[];
    readonly prompt_token_ids?: number[];
    readonly finish_reason: string | null;
  }[];
}

let replicas: ReplicaProcess[];
let gateway: GatewayProcess;
let nonces = 0;

beforeAll(async () => {
  const profile = 'tokens:ttft=2ms,itl=2ms';
  replicas = [];
  for (const name of ['a', 'b', 'c']) {
    replicas.push(await replicaProcess({ model: 'm', profile, name }));
  }
  const rows = replicas.map(({ url }, i) => ({ url, name: 'abc'[i]!, weight: 1000 / 100 ** i }));
  const policy = 'weighted_least_connections';
  gateway = await gatewayProcess({
    config: {
      health: { interval: '10m' },
      retry: { budget: 1, budget_min: 1000 },
      breaker: { window: 1000 },
      models: [{ name: 'm', policy, continuation: 'token_ids', replicas: rows }],
    },
  });
});
afterAll(async () => {
  await gateway.finish();
  for (const replica of replicas) await replica.close();
});

interface Got {
  readonly nonce: string;
  readonly text: string;
  readonly chunks: readonly Chunk[];
  readonly content: string;
  readonly finish: readonly string[];
  readonly isDone: boolean;
  /** Paths of the requests that each replica has got. */
  readonly paths: readonly (readonly string[])[];
}

async function stream(body: object, nonce: string, path: string): Promise<Got> {
  const sent = { model: 'm', stream: true, ...body };
  const { text } = await post(gateway.url, sent, { 'x-request-id': nonce }, path);
  const events = text.split('\n\n').filter((event) => event.startsWith('data: {'));
  const chunks = events
    .filter((event) => !event.includes('"error"'))
    .map((event) => JSON.parse(event.slice('data: '.length)) as Chunk);
  const choices = chunks.flatMap((chunk) => chunk.choices);
  const ledgers = await Promise.all(replicas.map((replica) => replica.ledger(nonce)));
  await expectQuiet(gateway);
  for (const replica of replicas) expect((await replica.stats()).continuation_mismatches).toBe(0);
  return {
    ...{ nonce, text, chunks, isDone: text.endsWith('data: [DONE]\n\n') },
    content: choices.map(({ text, delta }) => text ?? delta?.content ?? '').join(''),
    finish: choices.flatMap(({ finish_reason: reason }) => reason ?? []),
    paths: ledgers.map((ledger) => ledger.map((attempt) => attempt.path)),
  };
}

async function billed(): Promise<{ input: number; output: number }> {
  const families = await gateway.metrics();
  const of = (type: string): number => total(families, 'sluice_tokens_total', { type });
  return { input: of('input'), output: of('output') };
}

const [chatPath, textPath] = ['/v1/chat/completions', '/v1/completions'];

const messagesOf = (nonce: string, tags: string) => [
  { role: 'user', content: `nonce=${nonce} ${tags}` },
];

function chat(tags: string, more: object = {}): Promise<Got & { readonly series: TokenSeries }> {
  const nonce = `ids-${nonces++}`;
  const messages = messagesOf(nonce, tags);
  const body = { messages, max_tokens: tokens, ignore_eos: true, ...more };
  const series = tokenSeries(renderChat(messages));
  return stream(body, nonce, chatPath).then((got) => ({ ...got, series }));
}

test('a chat goes on as a completion, and its client sees a chat without ids', async () => {
  for (const k of [1, 10, 19]) {
    const got = await chat(`[[fault@a:fin-after=${k}]]`);
    expect(got.content).toBe(tokensText(got.series, 0, tokens));
    expect([got.finish, got.isDone]).toEqual([['length'], true]);
    expect(got.paths).toEqual([[chatPath], [textPath], []]);
    expect(got.text).not.toContain('token_ids');
    expect(got.text).not.toContain('text_completion');
    const shapes = got.chunks.map(({ object, choices }) => [object, choices[0]?.text]);
    for (const shape of shapes) expect(shape).toEqual(['chat.completion.chunk', undefined]);
    expect(got.chunks.filter(({ choices }) => choices[0]?.delta?.role !== undefined).length).toBe(
      1,
    );
  }
});

test('nothing has been delivered: the chat is asked again as it was', async () => {
  const got = await chat('[[fault@a:fin-after=0]]');
  expect(got.content).toBe(tokensText(got.series, 0, tokens));
  expect(got.paths).toEqual([[chatPath], [chatPath], []]);
});

test('two breaks, with usage: prompt and answer are counted as those of one answer', async () => {
  const usage = { stream_options: { include_usage: true } };
  const got = await chat('[[fault@a:fin-after=10]] [[fault@b:reset-after=19]]', usage);
  expect(got.content).toBe(tokensText(got.series, 0, tokens));
  expect(got.paths).toEqual([[chatPath], [textPath], [textPath]]);
  const prompt = renderChat(
    messagesOf(got.nonce, '[[fault@a:fin-after=10]] [[fault@b:reset-after=19]]'),
  );
  expect(got.chunks.flatMap((chunk) => chunk.usage ?? [])).toEqual([
    expect.objectContaining({
      prompt_tokens: promptTokenIds(prompt).length,
      completion_tokens: tokens,
    }),
  ]);
});

test('what is billed is what the client got, by ids where no usage comes', async () => {
  const before = await billed();
  const tags = '[[fault@a:fin-after=10;no-usage]] [[fault@b:no-usage;reset-after=15]]';
  const got = await chat(`${tags} [[fault@c:no-usage]]`);
  expect(got.content).toBe(tokensText(got.series, 0, tokens));
  expect(got.paths).toEqual([[chatPath], [textPath], [textPath]]);
  const after = await billed();
  const prompt = renderChat(messagesOf(got.nonce, `${tags} [[fault@c:no-usage]]`));
  expect([after.input - before.input, after.output - before.output]).toEqual([
    promptTokenIds(prompt).length,
    tokens,
  ]);
});

test('an event too large is cut as without continuation, however long the prompt', async () => {
  const got = await chat(`[[fault@a:big-event=1500000]] ${'x'.repeat(100_000)}`);
  expect(got.content).toBe(tokensText(got.series, 0, 1));
  expect(got.text).not.toContain('padding');
  expect(got.text).toContain('"code":"event_too_large"');
  expect(got.isDone).toBe(false);
});

test('a client that asks for ids gets them, over the break, and those of the prompt once', async () => {
  const got = await chat('[[fault@a:reset-after=7]]', { return_token_ids: true });
  const ids = got.chunks.flatMap(({ choices }) => choices[0]?.token_ids ?? []);
  expect(ids).toEqual(Array.from({ length: tokens }, (_, k) => tokenId(got.series, k)));
  const ofPrompt = got.chunks.flatMap(
    (chunk) => chunk.prompt_token_ids ?? chunk.choices[0]?.prompt_token_ids ?? [],
  );
  const prompt = renderChat(messagesOf(got.nonce, '[[fault@a:reset-after=7]]'));
  expect(ofPrompt).toEqual(promptTokenIds(prompt));
  expect(got.paths).toEqual([[chatPath], [textPath], []]);
});

test('a chat without a limit goes on to its own end', async () => {
  const got = await chat('[[len=40]] [[fault@a:fin-after=30]]', {
    ...{ max_tokens: undefined, ignore_eos: undefined },
  });
  expect(got.content).toBe(tokensText(got.series, 0, 40));
  expect([got.finish, got.isDone]).toEqual([['stop'], true]);
});

test('a completion, of a text and of ids', async () => {
  for (const isOfIds of [false, true]) {
    const nonce = `ids-${nonces++}`;
    const prompt = `nonce=${nonce} [[utf8]] \\" [[fault@a:fin-after=5]] [[fault@b:reset-after=12]]`;
    const body = { prompt: isOfIds ? promptTokenIds(prompt) : prompt, max_tokens: tokens };
    const got = await stream({ ...body, ignore_eos: true }, nonce, textPath);
    expect(got.content).toBe(tokensText(tokenSeries(prompt), 0, tokens));
    expect(new Set(got.chunks.map(({ id }) => id)).size).toBe(1);
    expect(got.text).not.toContain('token_ids');
    expect(got.paths).toEqual([[textPath], [textPath], [textPath]]);
  }
});

test('an engine that does not know ids: a break ends the stream with an error event', async () => {
  const got = await chat('[[fault@a:no-token-ids;fin-after=5]]');
  expect(got.content).toBe(tokensText(got.series, 0, 5));
  expect(got.text).toContain('"code":"truncated_stream"');
  expect([got.isDone, got.paths]).toEqual([false, [[chatPath], [], []]]);
});

test('the one that goes on does not know ids: it is not gone on behind it', async () => {
  const whole = await chat('[[fault@a:fin-after=5]] [[fault@b:no-token-ids]]');
  expect(whole.content).toBe(tokensText(whole.series, 0, tokens));
  expect(whole.isDone).toBe(true);
  const cut = await chat('[[fault@a:fin-after=5]] [[fault@b:no-token-ids;fin-after=9]]');
  expect(cut.content).toBe(tokensText(cut.series, 0, 9));
  expect(cut.text).toContain('"code":"truncated_stream"');
  expect([cut.isDone, cut.paths]).toEqual([false, [[chatPath], [textPath], []]]);
});

test('a chat with an image is not continued', async () => {
  const nonce = `ids-${nonces++}`;
  const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AA' } };
  const text = { type: 'text', text: `nonce=${nonce} [[fault@a:fin-after=5]]` };
  const messages = [{ role: 'user', content: [text, image] }];
  const got = await stream({ messages, max_tokens: tokens }, nonce, chatPath);
  expect(got.text).toContain('"code":"truncated_stream"');
  expect([got.isDone, got.paths]).toEqual([false, [[chatPath], [], []]]);
});

test('a prompt whose ids would not fit is served, and not continued', async () => {
  // The default cap is 64 KiB, of 4 bytes for each id.
  for (const bytes of [60_000, 300_000]) {
    const got = await chat(`[[fault@a:fin-after=5]] ${'x'.repeat(bytes)}`);
    expect(got.content).toBe(tokensText(got.series, 0, 5));
    expect(got.text).toContain('"code":"truncated_stream"');
    expect(got.text).not.toContain('token_ids');
  }
});
