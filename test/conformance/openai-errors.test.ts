/** What the official OpenAI client sees when something goes wrong, on both engines. */
import type OpenAI from 'openai';
import { APIError, BadRequestError, InternalServerError, RateLimitError } from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { expectQuiet, testEngines } from '../support/gateway.ts';
import { collect, openaiClient } from '../support/openai-cases.ts';
import {
  answerTo,
  deadModel,
  fleetForAll,
  limitedModel,
  model,
  narrowModel,
  type OpenAiFleet,
  overloadedModel,
} from '../support/openai-fleet.ts';
import { eventually } from '../support/until.ts';

describe.each(testEngines)('failures seen by the openai client over the %s engine', (engine) => {
  let fleet: OpenAiFleet;
  let client: OpenAI;

  fleetForAll(engine, (started) => {
    fleet = started;
    client = openaiClient(fleet.gateway);
  });

  afterEach(() => expectQuiet(fleet.gateway));

  describe('failures', () => {
    const ask = (name: string, content: string, options: OpenAI.RequestOptions = {}) =>
      client.chat.completions
        .create({ model: name, messages: [{ role: 'user', content }] }, options)
        .then(() => undefined)
        .catch((reason: unknown) => reason);

    test('a full queue is a rate limit that says when to come back', async () => {
      const first = ask(narrowModel, '[[hold]]');
      await fleet.replicas.narrow.gate.arrivals(1);
      const error = await ask(narrowModel, 'second');
      fleet.replicas.narrow.gate.release();
      expect(error).toBeInstanceOf(RateLimitError);
      expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'requests' });
      expectRetryAdvice(error);
      expect(await first).toBeUndefined();
    });

    test('no replica is an overload that says when to come back', async () => {
      await eventually('the dead replica is out', async () => {
        return (await fleet.gateway.cluster()).replicas.some(
          (r) => r.model === deadModel && !r.healthy,
        );
      });
      const error = await ask(deadModel, 'hello');
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 503, code: 'no_replica', type: 'overloaded' });
      expectRetryAdvice(error);
    });

    test.each([
      [limitedModel, 429, RateLimitError, 'rate_limit_exceeded'],
      [overloadedModel, 503, InternalServerError, 'replica_overloaded'],
    ])('a replica of %s that answers %i passes on its advice', async (name, status, type, code) => {
      const error = await ask(name, `[[fault:status=${status};retry-after=7]]`);
      expect(error).toBeInstanceOf(type);
      expect(error).toMatchObject({ status, code });
      expectRetryAdvice(error);
      const { headers } = error as APIError;
      expect(Number(headers?.get('retry-after-ms'))).toBeGreaterThan(6000);
    });

    test('a replica that fails before its first byte is a bad gateway once all were asked', async () => {
      const error = await ask(model, 'nonce=failing [[fault:status=500]]');
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({
        status: 502,
        type: 'server_error',
        code: 'all_attempts_failed',
      });
      const { a, b } = fleet.replicas;
      expect([a, b].map((replica) => replica.ledger('failing').length)).toEqual([1, 1]);
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
      // Long enough for a busy machine to bring it to the replica, which holds it for ever.
      const headers = { 'x-sluice-deadline-ms': '1500' };
      const error = await ask(model, 'nonce=deadline [[hold]]', { headers });
      expect(error).toBeInstanceOf(InternalServerError);
      expect(error).toMatchObject({ status: 504, code: 'deadline_exceeded', type: 'timeout' });
      await eventually('it is aborted', () => fleet.attempts('deadline')[0]?.end === 'aborted');
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

  describe('retries of the client', () => {
    test('wait as long as retry-after-ms says, and then succeed', async () => {
      const calls: { start: number; end: number; status: number; retryAfterMs: number }[] = [];
      const retrying = fleet.clientWith({
        maxRetries: 1,
        onResponse: (response, start) => {
          const retryAfterMs = Number(response.headers.get('retry-after-ms'));
          calls.push({ start, end: nowMs(), status: response.status, retryAfterMs });
          if (response.status === 429) fleet.replicas.narrow.gate.release();
        },
      });
      const first = client.chat.completions.create({
        model: narrowModel,
        messages: [{ role: 'user', content: '[[hold]]' }],
      });
      await fleet.replicas.narrow.gate.arrivals(1);
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
      expect(fleet.replicas.narrow.ledger('again')).toHaveLength(1);
    });
  });
});

function expectRetryAdvice(error: unknown): void {
  const { headers } = error as APIError;
  const ms = Number(headers?.get('retry-after-ms'));
  expect(ms).toBeGreaterThan(0);
  expect(Number(headers?.get('retry-after'))).toBe(Math.ceil(ms / 1000));
  expect((error as APIError).requestID).toMatch(/^[0-9a-f-]{36}$/);
}
