/** The official OpenAI client against the gateway over a real engine, on both HTTP engines. */
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { type LlamaServer, llamaServer } from '../support/llama-server.ts';
import { openaiCases, openaiClient, post } from '../support/openai-cases.ts';

const model = 'tiny';
const embeddingModel = 'tiny-embeddings';
/** The vocabulary brings no template, and the engine's own does not mention tools. */
const template = fileURLToPath(new URL('tools.jinja', import.meta.url));
const repeatable = { temperature: 0, cache_prompt: false };

const schema = {
  type: 'object',
  properties: { colour: { type: 'string', enum: ['red', 'blue'] } },
  required: ['colour'],
};

const chatServers: LlamaServer[] = [];
let embeddings: LlamaServer;

beforeAll(async () => {
  const flags = ['--chat-template-file', template];
  for (let i = 0; i < 2; i++) chatServers.push(await llamaServer({ name: model, flags }));
  embeddings = await llamaServer({
    name: embeddingModel,
    flags: ['--embeddings', '--pooling', 'mean'],
  });
});

afterAll(async () => {
  for (const server of [...chatServers, embeddings]) await server?.close();
});

describe.each(testEngines)('the openai client over the %s engine', (engine) => {
  let gateway: GatewayProcess;

  beforeAll(async () => {
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        models: [
          { name: model, replicas: chatServers.map(({ url }) => ({ url, max_in_flight: 4 })) },
          { name: embeddingModel, replicas: [{ url: embeddings.url }] },
        ],
      },
    });
  });

  afterAll(() => gateway?.close());

  openaiCases(() => ({
    gateway,
    model,
    embeddingModel,
    repeatable,
    // It looks at the connection of an answer that is not streamed only when it writes.
    hearsLeaving: 'when it streams',
    long: { max_tokens: 2000, ignore_eos: true },
    running: async () => {
      const busy = await Promise.all(chatServers.map((server) => server.busySlots()));
      return busy.reduce((sum, count) => sum + count, 0);
    },
  }));

  test('prompt tokens that the engine still knew are told as cached', async () => {
    const content = `${engine}: a prompt that nobody has sent before`;
    const body = { model, messages: [{ role: 'user' as const, content }], max_tokens: 4 };
    const cached: number[] = [];
    // Of three equal requests over two replicas, one comes to a replica for the second time.
    for (let i = 0; i < 3; i++) {
      const { usage } = await openaiClient(gateway).chat.completions.create(body);
      cached.push(usage?.prompt_tokens_details?.cached_tokens ?? Number.NaN);
    }
    expect(cached[0]).toBeLessThan(Math.max(...cached));
    expect(Math.max(...cached)).toBeGreaterThan(10);
  });

  test('an answer has the form that a schema in the request asks for', async () => {
    const answer = await openaiClient(gateway).chat.completions.create({
      model,
      messages: [{ role: 'user', content: 'Which colour?' }],
      response_format: { type: 'json_schema', json_schema: { name: 'choice', schema } },
      max_tokens: 200,
      ...repeatable,
    });
    const { colour } = JSON.parse(answer.choices[0]?.message.content ?? '');
    expect(['red', 'blue']).toContain(colour);
  });

  test('tools reach the prompt, and the answer is what the engine says to it', async () => {
    const client = openaiClient(gateway);
    const messages = [{ role: 'user' as const, content: 'Which colour?' }];
    const body = { model, messages, max_tokens: 12, ...repeatable };
    const tools = [{ type: 'function' as const, function: { name: 'choose', parameters: schema } }];
    const without = await client.chat.completions.create(body);
    const through = await client.chat.completions.create({ ...body, tools });
    const direct = new OpenAI({ baseURL: `${chatServers[0]?.url}/v1`, apiKey: 'none' });
    const wanted = await direct.chat.completions.create({ ...body, tools });
    expect(through.usage?.prompt_tokens).toBe(wanted.usage?.prompt_tokens);
    expect(through.usage?.prompt_tokens).toBeGreaterThan(without.usage?.prompt_tokens ?? 0);
    expect(through.choices).toEqual(wanted.choices);
  });

  test('many streams at once all end well, on more than one replica', async () => {
    const client = openaiClient(gateway);
    const finishes = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const content = `stream ${i}`;
        const request = { model, messages: [{ role: 'user' as const, content }], max_tokens: 40 };
        const stream = await client.chat.completions.create({ ...request, stream: true });
        let reason: string | null | undefined;
        // Not `finalChatCompletion`: the engine leaves the role out when the first token it drew is
        // only a part of a character.
        for await (const { choices } of stream) reason = choices[0]?.finish_reason ?? reason;
        return reason;
      }),
    );
    expect(finishes.every((reason) => reason === 'length' || reason === 'stop')).toBe(true);
    const { replicas } = await gateway.cluster();
    const served = replicas.filter((replica) => replica.model === model);
    expect(served.every(({ requests, errors }) => requests > 0 && errors === 0)).toBe(true);
  });

  test('what the engine finds wrong with a request is told as it said it', async () => {
    const body = JSON.stringify({ model, messages: [{ role: 'user' }] });
    const direct = await fetch(`${chatServers[0]?.url}/v1/chat/completions`, {
      method: 'POST',
      body,
    });
    const through = await post(gateway, '/v1/chat/completions', body);
    expect(through.status).toBe(400);
    expect(through.status).toBe(direct.status);
    expect(await through.text()).toBe(await direct.text());
  });

  test('the pass-through routes of the engine answer', async () => {
    const tokens = await post(gateway, '/tokenize', JSON.stringify({ model, content: 'a river' }));
    expect(((await tokens.json()) as { tokens: number[] }).tokens.length).toBeGreaterThan(1);
    const counted = await post(
      gateway,
      '/v1/messages/count_tokens',
      JSON.stringify({ model, messages: [{ role: 'user', content: 'a river' }] }),
    );
    expect(((await counted.json()) as { input_tokens: number }).input_tokens).toBeGreaterThan(1);
  });
});
