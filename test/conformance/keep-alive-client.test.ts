/** What the official OpenAI client makes of keep-alive comments and of a failure behind them. */
import { APIError } from 'openai';
import { expect, test } from 'vitest';
import { testEngines, withGateway } from '../support/gateway.ts';
import { collect, openaiClient } from '../support/openai-cases.ts';
import { answerTo } from '../support/openai-fleet.ts';
import { configOf, model, total, withReplicas } from '../support/scenario.ts';
import { reached } from '../support/traffic.ts';

test.each(testEngines)('it waits, reads the answer, and raises the error, engine %s', (engine) =>
  withReplicas(1, { model, profile: 'instant' }, async (replicas) => {
    const config = configOf(replicas, {
      listen: { engine },
      streams: { keep_alive: '100ms' },
      timeouts: { first_token: '1s' },
      retry: { max_attempts: 1 },
    });
    await withGateway({ config }, async (gateway) => {
      const client = openaiClient(gateway);
      const ask = (content: string) =>
        client.chat.completions.create({
          ...{ model, messages: [{ role: 'user', content }], stream: true },
        });
      const content = 'nonce=waits [[hold]]';
      // Its head is here before anything of the answer is.
      const stream = await ask(content);
      await reached(
        () => gateway.metrics(),
        (pages) => total(pages, 'sluice_keep_alive_comments_total') >= 2,
        'comments',
      );
      replicas[0]!.gate.release();
      const chunks = await collect(stream);
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
      expect(text).toBe(answerTo(content));

      const failed = await ask('nonce=fails [[hold]]');
      const error = await collect(failed).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(APIError);
      expect(error).toMatchObject({ code: 'headers_timeout', type: 'server_error' });
    });
  }),
);
