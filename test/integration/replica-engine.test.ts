/** The engine profiles of the simulated replica over real HTTP, at many times their own speed. */
import { expect, test } from 'vitest';
import type { Replica, ReplicaOptions } from '../../src/replica/replica.ts';
import { tokenSeries } from '../../src/replica/tokens.ts';
import { closedAfterEach } from '../support/closing.ts';
import { RawClient, rawPost, rawRequest } from '../support/raw-client.ts';
import { replicaInProcess, replicaProcess } from '../support/replica.ts';
import { readSse, type SseLedger } from '../support/sse-ledger.ts';

const closing = closedAfterEach();

async function start(options: ReplicaOptions = {}): Promise<Replica> {
  const replica = await replicaInProcess({ profile: 'engine:8b-h100,speed=50', ...options });
  closing.push(replica);
  return replica;
}

function completion(prompt: unknown, extra: object = {}, fault = ''): string {
  const header = fault === '' ? '' : `x-replica-fault: ${fault}\r\n`;
  return rawPost('/v1/completions', { model: 'm', prompt, ignore_eos: true, ...extra }, header);
}

const streamed = { stream: true, stream_options: { include_usage: true } };
const prompt = `nonce=E1 ${'every page of a prompt has forty-eight bytes. '.repeat(40)}`;
const series = tokenSeries(prompt);

async function body(replica: Replica, request: string): Promise<Buffer> {
  return (await rawRequest(replica.port, request)).responses[0]?.body ?? Buffer.alloc(0);
}

async function stream(replica: Replica, extra: object = {}, fault = ''): Promise<SseLedger> {
  const request = completion(prompt, { ...streamed, max_tokens: 12, ...extra }, fault);
  return readSse(await body(replica, request), series);
}

async function metrics(replica: Replica): Promise<Map<string, number>> {
  const text = await (await fetch(`${replica.url}/metrics`)).text();
  const lines = text.matchAll(/^vllm:(\w+)\{[^}]*\} (\S+)$/gm);
  return new Map([...lines].map(([, name = '', value]) => [name, Number(value)]));
}

async function control(replica: Replica, change: object): Promise<Response> {
  const request = { method: 'POST', body: JSON.stringify(change) };
  return await fetch(`${replica.controlUrl}/control`, request);
}

test.each(['engine:8b-h100,speed=50', 'engine:70b-h100x4,speed=200'])(
  'a stream of %s is exact, one event a token',
  async (profile) => {
    const replica = await start({ profile });
    const received = await body(replica, completion(prompt, { ...streamed, max_tokens: 12 }));
    expect(readSse(received, series)).toMatchObject({ tokens: 12, exact: true, sawDone: true });
    // Twelve tokens, the usage and the end.
    expect(received.toString().match(/^data: /gm)?.length).toBe(14);
  },
);

test('an answer that is no stream comes with all its tokens', async () => {
  const replica = await start();
  const answer = JSON.parse(
    (await body(replica, completion(prompt, { max_tokens: 9 }))).toString(),
  );
  expect(answer.usage.completion_tokens).toBe(9);
  expect(replica.stats()).toMatchObject({ running: 0, waiting: 0, served: 1, tokens_emitted: 9 });
});

test('what the prefix cache saved is in usage and in the metrics', async () => {
  const replica = await start();
  const promptTokens = Math.ceil(prompt.length / 3);
  const cachedTokens = Math.floor(promptTokens / 16) * 16;
  const cold = { prompt_tokens: promptTokens, prompt_tokens_details: { cached_tokens: 0 } };
  const warm = { ...cold, prompt_tokens_details: { cached_tokens: cachedTokens } };
  expect((await stream(replica)).usage).toMatchObject(cold);
  expect((await stream(replica)).usage).toMatchObject(warm);
  // A response with faults is written out in advance, and still knows.
  expect((await stream(replica, {}, 'split=40')).usage).toMatchObject(warm);
  const whole = JSON.parse((await body(replica, completion(prompt, { max_tokens: 1 }))).toString());
  expect(whole.usage).toMatchObject(warm);
  const figures = await metrics(replica);
  expect(figures.get('prefix_cache_queries_total')).toBe(4 * promptTokens);
  expect(figures.get('prefix_cache_hits_total')).toBe(3 * cachedTokens);
  expect(figures.get('kv_cache_usage_perc')).toBe(0);
});

test('the Responses API says what was cached, also of a stored response', async () => {
  const replica = await start();
  const request = rawPost('/v1/responses', { model: 'm', input: prompt, max_output_tokens: 3 });
  const answers: { id: string; usage: { input_tokens_details: { cached_tokens: number } } }[] = [];
  for (let i = 0; i < 2; i++) answers.push(JSON.parse((await body(replica, request)).toString()));
  expect(answers[0]?.usage.input_tokens_details.cached_tokens).toBe(0);
  expect(answers[1]?.usage.input_tokens_details.cached_tokens).toBeGreaterThan(500);
  const stored = await fetch(`${replica.url}/v1/responses/${answers[1]?.id}`);
  expect(await stored.json()).toEqual(answers[1]);
});

test('running and waiting are those of the engine, and who leaves makes room', async () => {
  const replica = await start({ maxNumSeqs: 2 });
  const clients = await Promise.all([1, 2, 3].map(() => RawClient.connect(replica.port)));
  for (const client of clients) {
    await client.send(completion(prompt, { stream: true, max_tokens: 200_000 }));
  }
  await replica.until(({ running, waiting }) => running === 2 && waiting === 1);
  const figures = await metrics(replica);
  expect(figures.get('num_requests_running')).toBe(2);
  expect(figures.get('num_requests_waiting')).toBe(1);
  expect(figures.get('kv_cache_usage_perc')).toBeGreaterThan(0);
  // Whichever of the three is gone, two can run.
  clients[0]?.reset();
  await replica.until(({ running, waiting, aborted }) => running + waiting + aborted === 3);
  for (const client of clients.slice(1)) client.reset();
  await replica.until(({ running, waiting, aborted }) => running + waiting === 0 && aborted === 3);
  expect((await metrics(replica)).get('kv_cache_usage_perc')).toBe(0);
});

test('short of memory, a request is preempted and loses no token', async () => {
  const replica = await start({ profile: 'engine:8b-h100,speed=1000' });
  // Three times 180,000 tokens of prompt and answer are more than the 448,000 of the memory.
  const long = (k: number): string => `[[hold]] nonce=P${k} ${'z'.repeat(3 * 140_000)}`;
  const requests = [0, 1, 2].map(async (k) => {
    const request = completion(long(k), { max_tokens: 40_000 });
    return JSON.parse((await body(replica, request)).toString());
  });
  await replica.gate.arrivals(3); // an engine of this speed is through with one before the next comes
  replica.gate.release();
  const answers = await Promise.all(requests);
  expect(answers.map(({ usage }) => usage.completion_tokens)).toEqual([40_000, 40_000, 40_000]);
  expect((await metrics(replica)).get('num_preemptions_total')).toBeGreaterThan(0);
});

test('a request that can never fit is refused', async () => {
  const replica = await start();
  const { responses } = await rawRequest(replica.port, completion('x', { max_tokens: 500_000 }));
  expect(responses[0]?.status).toBe(400);
  const { error } = JSON.parse(responses[0]?.body.toString() ?? '');
  expect(error.code).toBe('context_length_exceeded');
  expect((await stream(replica)).sawDone).toBe(true);
});

test('choices are sequences of their own, with the tokens of each', async () => {
  const replica = await start();
  const received = await body(replica, completion(prompt, { max_tokens: 4, n: 3 }));
  const { choices, usage } = JSON.parse(received.toString());
  expect(choices.length).toBe(3);
  expect(usage).toMatchObject({
    completion_tokens: 12,
    prompt_tokens_details: { cached_tokens: 0 },
  });
});

test('faults act at their tokens, and the engine forgets whom they cut', async () => {
  const replica = await start();
  for (const [fault, ended] of [
    ['reset-after=3', 'reset'],
    ['fin-after=3;mid-event', 'fin'],
  ]) {
    const client = await RawClient.connect(replica.port);
    await client.send(completion(prompt, { stream: true, max_tokens: 2000 }, fault));
    expect(await client.closed).toBe(ended);
    const { responses } = await client.responses();
    const ledger = readSse(responses[0]?.body ?? Buffer.alloc(0), series);
    expect(ledger).toMatchObject({ tokens: 3, exact: true, sawDone: false });
  }
  await replica.until(({ running, cut }) => running === 0 && cut === 2);
  expect(await stream(replica, {}, 'slow=3;delay=5')).toMatchObject({ tokens: 12, exact: true });
  const stalled = await RawClient.connect(replica.port);
  closing.push(stalled);
  await stalled.send(completion(prompt, { stream: true, max_tokens: 8 }, 'stall=5'));
  await stalled.until((received) => received.includes('E1:4:'));
  // The engine has made all eight; the client has five and nothing more.
  await replica.until(({ running }) => running === 0);
  expect(replica.stats().in_flight).toBe(1);
  expect(replica.ledger('E1').at(-1)?.tokens).toBe(5);
});

test('a held request reaches the engine when it is released', async () => {
  const replica = await start({ hold: true });
  const answer = stream(replica);
  await replica.gate.arrivals(1);
  expect((await metrics(replica)).get('prefix_cache_queries_total')).toBe(0);
  replica.gate.release();
  expect((await answer).sawDone).toBe(true);
});

test('the whole engine can be made slow, but only where there is one', async () => {
  const replica = await start();
  expect((await control(replica, { slowness: 5 })).status).toBe(200);
  expect((await stream(replica)).exact).toBe(true);
  expect((await control(replica, { slowness: 0 })).status).toBe(400);
  const other = await start({ profile: 'instant' });
  expect((await control(other, { slowness: 5 })).status).toBe(400);
});

test('profiles of engines are read, and what is none says why', async () => {
  for (const profile of ['engine:', 'engine:9b', 'engine:8b-h100,speed=0', 'engine:8b-h100,x=1']) {
    await expect(start({ profile })).rejects.toThrow('profile');
  }
  await expect(start({ maxNumSeqs: 8192 })).rejects.toThrow('max-num-seqs');
});

test('a replica process dies at the token where it is told to', async () => {
  const replica = await replicaProcess({ profile: 'engine:8b-h100,speed=50' });
  closing.push(replica);
  const client = await RawClient.connect(replica.port);
  await client.send(completion(prompt, { stream: true, max_tokens: 64 }, 'kill-after=4'));
  await client.closed;
  const { responses } = await client.responses();
  expect(readSse(responses[0]?.body ?? Buffer.alloc(0), series)).toMatchObject({ tokens: 4 });
});
