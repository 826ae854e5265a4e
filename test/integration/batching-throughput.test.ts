/**
 * What batching is for: a replica with a fixed price per call. It serves one call at a time, each in
 * 20 ms, whatever is in it; the same load runs against it with and without batching.
 */
import { expect, test } from 'vitest';
import { tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { withGateway } from '../support/gateway.ts';
import { configOf, model, post, withReplicas } from '../support/scenario.ts';

const clients = 32;
const requestsPerClient = 6;

async function run(batching: object | undefined): Promise<{ ms: number; calls: number }> {
  return withReplicas(1, { profile: 'uniform:20ms-20ms', maxNumSeqs: 1 }, async ([replica]) => {
    const replicas = [{ url: replica!.url, name: 'r1', ...(batching && { batching }) }];
    return withGateway({ config: configOf([], {}, { replicas }) }, async ({ url }) => {
      const ask = async (prompt: string): Promise<void> => {
        const answer = await post(url, { model, prompt, max_tokens: 2 }, {}, '/v1/completions');
        const { choices } = JSON.parse(answer.text) as { choices: { text: string }[] };
        expect(choices.map(({ text }) => text)).toEqual([tokensText(tokenSeries(prompt), 0, 2)]);
      };
      await ask('warm');
      const before = replica!.stats().served;
      const startMs = performance.now();
      await Promise.all(
        Array.from({ length: clients }, async (_, client) => {
          for (let i = 0; i < requestsPerClient; i++) await ask(`client ${client} asks ${i}`);
        }),
      );
      return { ms: performance.now() - startMs, calls: replica!.stats().served - before };
    });
  });
}

test('a fixed price per call is paid once a batch', async () => {
  const requests = clients * requestsPerClient;
  const plain = await run(undefined);
  const batched = await run({ window: '20ms', max_items: 16 });
  const rate = ({ ms }: { ms: number }): number => Math.round((requests * 1000) / ms);
  console.info(
    `requests/s: ${rate(plain)} in ${plain.calls} calls, batched ${rate(batched)} in ${batched.calls}`,
  );
  expect(plain.calls).toBe(requests);
  expect(batched.calls).toBeLessThan(requests / 2);
  expect(batched.ms).toBeLessThan(plain.ms);
}, 60_000); // two gateways and some seconds of load
