/**
 * The official Anthropic client over simulated replicas, on both engines: how a stream of the Messages API
 * ends, what errors look like, what is counted, and whose key goes where.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { promptTokenCount, renderChat } from '../../src/replica/tokens.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  testEngines,
} from '../support/gateway.ts';
import { answerTo } from '../support/openai-fleet.ts';
import { replicaInProcess } from '../support/replica.ts';
import { failureOf } from '../support/sdk-cases.ts';
import { eventually } from '../support/until.ts';

const [model, ownKeyModel, deadModel] = ['m', 'own-key', 'dead'];
const clientKey = 'sk-ant-of-the-client';
const uuidv7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/;

describe.each(testEngines)('the Anthropic client over the %s engine', (engine) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-anthropic-'));
  const usageFile = join(folder, 'usage.ndjson');
  let gateway: GatewayProcess;
  let replica: Replica;
  let client: Anthropic;

  beforeAll(async () => {
    // The replica has the key of the client, so that one that is lost on the way is seen.
    replica = await replicaInProcess({ profile: 'engine:8b-h100', apiKey: clientKey, seed: 1 });
    const dead = await replicaInProcess();
    await dead.close();
    gateway = await gatewayProcess({
      config: {
        ...{ listen: { engine }, usage: { file: usageFile } },
        health: { interval: '200ms', timeout: '200ms' },
        models: [
          { name: model, replicas: [{ url: replica.url }] },
          { name: ownKeyModel, replicas: [{ url: replica.url, api_key: clientKey }] },
          { name: deadModel, replicas: [{ url: dead.url }] },
        ],
      },
    });
    client = clientWith(clientKey);
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(() => expectQuiet(gateway));

  const clientWith = (apiKey: string): Anthropic =>
    new Anthropic({
      ...{ baseURL: gateway.url, maxRetries: 0, apiKey: null, authToken: null },
      // As curl and older versions send it; this one makes a bearer token of its `apiKey`.
      defaultHeaders: { 'x-api-key': apiKey },
    });
  const body = (content: string, of = model) => ({
    ...{ model: of, max_tokens: 100, messages: [{ role: 'user' as const, content }] },
  });

  test('its key reaches a replica that has none of its own, and no other', async () => {
    await client.messages.create(body('nonce=key'));
    expect(replica.ledger('key')[0]?.head).toMatch(new RegExp(`^x-api-key: ${clientKey}\r$`, 'im'));
    await clientWith('sk-ant-of-nobody').messages.create(body('nonce=own', ownKeyModel));
    expect(replica.ledger('own')[0]?.head).not.toContain('nobody');
    const refused = await failureOf(clientWith('sk-ant-of-nobody').messages.create(body('x')));
    expect(refused).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(refused).toMatchObject({ status: 401, type: 'authentication_error' });
  });

  test('a stream ends with message_stop, whether the replica says it or not', async () => {
    for (const fault of ['', '[[fault:sse=no-done]]']) {
      const content = `[[len=20]] ${fault}`;
      const message = await client.messages.stream(body(content)).finalMessage();
      expect(message.content).toMatchObject([{ type: 'text', text: answerTo(content, 0, 20) }]);
      expect(message.stop_reason).toBe('end_turn');
      expect(message.usage.output_tokens).toBe(20);
      const events = [];
      for await (const { type } of await client.messages.create({ ...body(content), stream: true }))
        events.push(type);
      expect(events.filter((type) => type === 'message_stop')).toHaveLength(1);
      expect(events.at(-1)).toBe('message_stop');
    }
  });

  test('without a reason to stop a stream is broken, whatever its framing says', async () => {
    const stream = client.messages.stream(body('[[len=20]] [[fault:fin-after=20]]'));
    const failure = await failureOf(stream.finalMessage());
    expect(failure).toBeInstanceOf(Anthropic.APIError);
    expect(failure).toMatchObject({ type: 'api_error' });
  });

  test('the last event of a broken stream', async () => {
    const response = await client.messages
      .create({ ...body('[[len=20]] [[fault:error-event=3]]'), stream: true })
      .asResponse();
    const last = (await response.text()).split('\n\n').at(-2) ?? '';
    const [event, data = ''] = last.split('\n');
    expect(event).toBe('event: error');
    expect(JSON.parse(data.replace(/^data: /, ''))).toEqual({
      type: 'error',
      error: { type: 'api_error', message: expect.any(String) },
      request_id: response.headers.get('request-id'),
    });
    expect(response.headers.get('request-id')).toMatch(uuidv7);
  });

  test('errors are of its own classes', async () => {
    const errors = await Promise.all(
      [
        client.messages.create(body('x', 'nobody')),
        client.messages.create({ ...body('x'), messages: [] }),
        client.messages.create({ ...body('x'), max_tokens: 'many' as never }),
      ].map(failureOf),
    );
    expect(errors).toMatchObject([
      { status: 404, type: 'not_found_error', requestID: expect.stringMatching(uuidv7) },
      { status: 400, type: 'invalid_request_error' },
      { status: 400, message: expect.stringContaining('"max_tokens: A parameter') },
    ]);
    expect(errors[0]).toBeInstanceOf(Anthropic.NotFoundError);
    expect(errors[1]).toBeInstanceOf(Anthropic.BadRequestError);
    await eventually('the dead replica is out', async () => {
      const { replicas } = await gateway.cluster();
      return replicas.some((row) => row.model === deadModel && !row.healthy);
    });
    const overloaded = await failureOf(client.messages.create(body('x', deadModel)));
    expect(overloaded).toBeInstanceOf(Anthropic.InternalServerError);
    expect(overloaded).toMatchObject({ status: 529, type: 'overloaded_error' });
  });

  test('tokens are counted by the replica', async () => {
    const { messages } = body('how many?');
    const { input_tokens } = await client.messages.countTokens({ model, messages });
    expect(input_tokens).toBe(promptTokenCount(renderChat(messages)));
  });

  test('what a cache gave is a part of the prompt in the bill, as with the other API', async () => {
    const content = `[[len=3]] ${'a prompt that is sent twice '.repeat(40)}`;
    const whole = promptTokenCount(renderChat([{ role: 'user', content }]));
    const ids: unknown[] = [];
    let cached = 0;
    for (const stream of [false, true]) {
      const { data, response } = stream
        ? await client.messages.stream(body(content)).withResponse()
        : await client.messages.create(body(content)).withResponse();
      const message = 'finalMessage' in data ? await data.finalMessage() : data;
      ids.push(response.headers.get('request-id'));
      cached = message.usage.cache_read_input_tokens ?? 0;
      expect(message.usage.input_tokens + cached).toBe(whole);
    }
    expect(cached, 'of the second one').toBeGreaterThan(0);
    const events = () =>
      readFileSync(usageFile, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter(({ req_id }) => ids.includes(req_id));
    await eventually('both are billed', () => events().length === 2);
    for (const event of events()) {
      expect(event).toMatchObject({ input_tokens: whole, output_tokens: 3 });
    }
    expect(events().at(-1)).toMatchObject({ cached_tokens: cached });
  });
});
