/**
 * What clients are billed for that do not let their replicas say: streams that nobody asked for usage, long
 * bodies, answers that are left before they end. Both engines.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import {
  chunk,
  jsonAnswer,
  RawReplica,
  type Respond,
  sse,
  tokenEvent,
} from '../support/raw-replica.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, openStream, post } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

interface Event {
  readonly req_id: string;
  readonly outcome: string;
  readonly input_tokens: number | null;
  readonly output_tokens: number | null;
  readonly estimated: boolean;
  readonly cost: number | null;
}

const prompt = 'word '.repeat(2000);
const price = { input: 1000, output: 1000 };

describe.each(testEngines)('usage that nobody tells, engine %s', (engine) => {
  let folder: string;
  let replica: Replica;
  let silent: RawReplica;
  let gateway: GatewayProcess;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-estimates-'));
    replica = await replicaInProcess({ profile: 'instant' });
    silent = await RawReplica.listen();
    answers(() => {});
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        usage: { file: join(folder, 'usage.ndjson') },
        models: [
          { name: 'm', price, replicas: [{ url: replica.url }] },
          { name: 'silent', price, replicas: [{ url: silent.url }] },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
    await silent?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function eventOf(id: string): Promise<Event> {
    const read = (): Event | undefined =>
      readFileSync(join(folder, 'usage.ndjson'), 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Event)
        .find((event) => event.req_id === id);
    await eventually('it is written', () => read() !== undefined);
    return read() as Event;
  }
  const of = (id: string) => ({ 'x-request-id': id });

  /** To requests; probes are told that all is well. */
  const answers = (respond: Respond): void => {
    silent.respond = (request) => {
      if (request.method === 'POST') respond(request);
      else request.connection.socket.write(jsonAnswer({ data: [] }));
    };
  };

  /** Sends it, reads until the answer has so many bytes, and leaves. */
  async function leave(id: string, body: object, bytes: number): Promise<Event> {
    const leaving = new AbortController();
    const response = await fetch(gateway.url + chatPath, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...of(id) },
      body: JSON.stringify({ ...body, model: 'silent' }),
      signal: leaving.signal,
    });
    expect(response.status).toBe(200);
    const reader = response.body!.getReader();
    for (let got = 0; got < bytes; ) got += (await reader.read()).value!.length;
    leaving.abort();
    return eventOf(id);
  }

  test('a stream is asked what it used as soon as that has a price, however long its body is', async () => {
    const body = chatBody(prompt, { max_tokens: 3 });
    const { text } = await post(gateway.url, body, of('whole'));
    const { prompt_tokens: input } = JSON.parse(text).usage;
    const padded = `${JSON.stringify({ ...body, stream: true })}${' '.repeat(2 * 1024 * 1024)}`;
    for (const [id, sent] of [
      ['stream', body],
      ['padded', padded],
    ] as const) {
      const { text: events } = await (await openStream(gateway.url, sent, of(id))).ended;
      expect(events).toMatch(/\[DONE\]/);
      expect(events, 'its client has not asked').not.toContain('usage');
      expect(await eventOf(id)).toMatchObject({
        ...{ outcome: 'ok', estimated: false, input_tokens: input, output_tokens: 3 },
        cost: (input + 3) / 1000,
      });
    }
  });

  test('who leaves a stream before its engine says pays for the prompt as estimated', async () => {
    answers(({ connection }) => {
      connection.socket.write(sse(chunk(tokenEvent('a') + tokenEvent('b'))));
    });
    const event = await leave('left', chatBody(prompt, { stream: true }), 50);
    expect(event).toMatchObject({ outcome: 'client_gone', output_tokens: 2, estimated: true });
    // Four bytes a token at first; the prompts before it had more.
    expect(event.input_tokens).toBeGreaterThanOrEqual(prompt.length / 4);
    expect(event.input_tokens).toBeLessThan(prompt.length / 2);
    expect(event.cost).toBeCloseTo((event.input_tokens! + 2) / 1000, 9);
  });

  test('who leaves a long answer in its middle pays for what came', async () => {
    const head =
      'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n';
    answers(({ connection }) => {
      connection.socket.write(`${head}{"choices":[{"message":{"content":"${'x'.repeat(300_000)}`);
    });
    const long = await leave('middle', chatBody(prompt), 100_000);
    expect(long).toMatchObject({ outcome: 'client_gone', estimated: true });
    expect(long.output_tokens).toBeGreaterThanOrEqual(100_000 / 4);
    expect(long.output_tokens).toBeLessThan(320_000 / 4);
    const limited = await leave('limited', chatBody(prompt, { max_tokens: 500 }), 100_000);
    expect(limited).toMatchObject({ output_tokens: 500, estimated: true });
    expect(limited.input_tokens).toBe(long.input_tokens);
  });

  test('answers in one piece of an engine that leaves usage out are not free', async () => {
    const content = 'x'.repeat(400);
    answers(({ connection }) => {
      connection.socket.write(jsonAnswer({ choices: [{ message: { content } }] }));
    });
    expect(
      (await post(gateway.url, { ...chatBody(prompt), model: 'silent' }, of('one'))).status,
    ).toBe(200);
    const event = await eventOf('one');
    expect(event).toMatchObject({ outcome: 'ok', estimated: true });
    expect(event.input_tokens).toBeGreaterThan(prompt.length / 8);
    expect(event.output_tokens).toBeGreaterThanOrEqual(100);
    expect(event.output_tokens).toBeLessThan(130);
  });

  test.each(['/tokenize', '/v1/messages/count_tokens'])(
    '%s has no model read its text',
    async (path) => {
      answers(({ connection }) => connection.socket.write(jsonAnswer({ count: 2000 })));
      const response = await fetch(gateway.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...of(path.slice(-8)) },
        body: JSON.stringify({ ...chatBody(prompt), model: 'silent' }),
      });
      expect(response.status).toBe(200);
      const nothing = { input_tokens: null, output_tokens: null, estimated: false, cost: null };
      expect(await eventOf(path.slice(-8))).toMatchObject({ outcome: 'ok', ...nothing });
    },
  );

  test('a response that its engine makes later is billed when it is promised', async () => {
    answers(({ connection }) => {
      connection.socket.write(
        jsonAnswer({ id: 'resp_1', object: 'response', status: 'queued', usage: null }),
      );
    });
    const response = await fetch(`${gateway.url}/v1/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...of('later') },
      body: JSON.stringify({
        model: 'silent',
        input: prompt,
        background: true,
        max_output_tokens: 7000,
      }),
    });
    expect(response.status).toBe(200);
    expect(await eventOf('later')).toMatchObject({ output_tokens: 7000, estimated: true });
  });

  test('an answer that never began is on nobody’s account', async () => {
    answers(({ connection }) => {
      connection.socket.write(
        'HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
      );
    });
    const body = { ...chatBody(prompt), model: 'silent' };
    expect((await post(gateway.url, body, of('refused'))).status).toBe(400);
    const nothing = { input_tokens: null, output_tokens: null, estimated: false, cost: null };
    expect(await eventOf('refused')).toMatchObject(nothing);
  });
});
