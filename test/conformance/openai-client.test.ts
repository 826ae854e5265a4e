/** The official OpenAI client against the gateway over simulated replicas, on both engines. */
import { createHash } from 'node:crypto';
import type OpenAI from 'openai';
import { APIUserAbortError, AuthenticationError, InternalServerError } from 'openai';
import { describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { testEngines } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { cancelMsMax, collect, openaiCases, openaiClient, post } from '../support/openai-cases.ts';
import {
  answerTo,
  clientKey,
  fleetForAll,
  keyedModel,
  model,
  type OpenAiFleet,
  replicaKey,
  slashedModel,
} from '../support/openai-fleet.ts';
import { eventually } from '../support/until.ts';

describe.each(testEngines)('the openai client over the %s engine', (engine) => {
  let fleet: OpenAiFleet;
  let client: OpenAI;

  fleetForAll(engine, (started) => {
    fleet = started;
    client = openaiClient(fleet.gateway);
  });

  openaiCases(() => ({
    gateway: fleet.gateway,
    model,
    embeddingModel: model,
    repeatable: {},
    hearsLeaving: 'always',
    long: { max_tokens: 10_000, ignore_eos: true },
    running: () => fleet.running(),
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
      // Of an alias the name alone is another one there.
      for (const name of [model, 'gpt-4o-mini']) {
        const nonce = `bytes-${name}`;
        const bodyFor = (
          named: string,
        ): string => `{ "model" : "${named}",\n\t"seed":9223372036854775807, "top_k": 1e2,
        "messages":[{"role":"user","content":"nonce=${nonce} caf\\u00e9 \u{1f600} \\ud83d\\ude00"}],
        "chat_template_kwargs":{"enable_thinking":false}, "max_tokens": 3.0, "é":[1.50,-0] }`;
        const answer = await post(fleet.gateway, '/v1/chat/completions', bodyFor(name));
        expect(answer.status).toBe(200);
        const [attempt, ...more] = fleet.attempts(nonce);
        expect(more).toEqual([]);
        expect(attempt?.bodySha256).toBe(sha256(bodyFor(model)));
      }
    });

    test('fields that only the client library adds are not lost', async () => {
      const sent: string[] = [];
      const recording = fleet.clientWith({ onRequest: (body) => sent.push(body) });
      const messages = [{ role: 'user' as const, content: 'nonce=extra [[len=2]]' }];
      const extra = { guided_json: { type: 'object' }, repetition_penalty: 1.05 };
      await recording.chat.completions.create({ model, messages, ...extra });
      expect(sent[0]).toContain('"guided_json"');
      expect(fleet.attempts('extra')[0]?.bodySha256).toBe(sha256(sent[0] ?? ''));
    });

    test('a prompt of a megabyte reaches the replica whole', async () => {
      const sent: string[] = [];
      const recording = fleet.clientWith({ onRequest: (body) => sent.push(body) });
      const content = `nonce=large [[len=4]] ${'ocean é '.repeat(130_000)}`;
      const messages = [{ role: 'user' as const, content }];
      const answer = await recording.chat.completions.create({ model, messages });
      expect(answer.choices[0]?.message.content).toBe(answerTo(content, 0, 4));
      const [attempt] = fleet.attempts('large');
      expect(attempt?.bodyBytes).toBeGreaterThan(1024 * 1024);
      expect(attempt?.bodySha256).toBe(sha256(sent[0] ?? ''));
    });

    test('an answer through the gateway has the bytes of a direct one', async () => {
      const body = JSON.stringify({ model, input: ['a', 'b'], encoding_format: 'float' });
      const direct = await fetch(`${fleet.replicas.a.url}/v1/embeddings`, { method: 'POST', body });
      const through = await post(fleet.gateway, '/v1/embeddings', body);
      expect(await through.text()).toBe(await direct.text());
      expect(through.headers.get('content-type')).toBe(direct.headers.get('content-type'));
    });
  });

  test('a model with a slash in its name is found', async () => {
    const sent: string[] = [];
    const watching = fleet.clientWith({ onResponse: ({ url }) => sent.push(url) });
    expect((await watching.models.retrieve(slashedModel)).id).toBe(slashedModel);
    expect(sent).toEqual([expect.stringContaining('/v1/models/meta-llama%2FLlama-3-8b')]);
  });

  describe('leaving', () => {
    let leaves = 0;
    test.each([true, false])('before the first token, streamed %s, reaches the replica', (stream) =>
      inTime(cancelMsMax, async () => {
        const nonce = `leave-${leaves++}`;
        const content = `nonce=${nonce} [[hold]]`;
        const controller = new AbortController();
        const answer = client.chat.completions.create(
          { model, messages: [{ role: 'user', content }], stream },
          { signal: controller.signal },
        );
        const failure = expect(answer).rejects.toThrow(APIUserAbortError);
        await eventually('a replica holds it', () => fleet.attempts(nonce).length === 1);
        const left = nowMs();
        controller.abort();
        await failure;
        await eventually('it is aborted', () => fleet.attempts(nonce)[0]?.end === 'aborted');
        expect(fleet.attempts(nonce)).toHaveLength(1);
        return (fleet.attempts(nonce)[0]?.abortAt ?? Number.NaN) - left;
      }),
    );
  });

  describe('keys', () => {
    test('the key of the client reaches a replica that has none of its own', async () => {
      const messages = [{ role: 'user' as const, content: 'nonce=plain [[len=2]]' }];
      await client.chat.completions.create({ model, messages });
      expect(fleet.attempts('plain')[0]?.head).toContain(`authorization: Bearer ${clientKey}`);
    });

    test('a key of the client that the replicas refuse is told to the client', async () => {
      const content = 'nonce=refused [[fault:status=401]]';
      const error = await client.chat.completions
        .create({ model, messages: [{ role: 'user', content }] })
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(AuthenticationError);
      expect(error).toMatchObject({ status: 401, code: 'invalid_api_key' });
      expect(fleet.attempts('refused')).toHaveLength(2);
    });

    test('the configured key takes the place of the key of the client', async () => {
      const messages = [{ role: 'user' as const, content: 'nonce=keyed [[len=2]]' }];
      await client.chat.completions.create({ model: keyedModel, messages });
      const head = fleet.replicas.keyed.ledger('keyed')[0]?.head ?? '';
      expect(head).toContain(`authorization: Bearer ${replicaKey}`);
      expect(head).not.toContain(clientKey);
      expect(fleet.gateway.output()).not.toContain(replicaKey);
    });

    test('a key of the gateway that a replica refuses is no matter of the client', async () => {
      const content = '[[fault:status=401]]';
      const error = await client.chat.completions
        .create({ model: keyedModel, messages: [{ role: 'user', content }] })
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 502, code: 'replica_unauthorized' });
    });
  });
});

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
