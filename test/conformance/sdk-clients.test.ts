/**
 * The client libraries that people use, against a gateway with keys over simulated replicas, on both
 * engines: what every one of them must meet (sdk-cases.ts), and the exact bytes, breaks and bills.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { promptTokenCount, renderChat } from '../../src/replica/tokens.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { answerTo } from '../support/openai-fleet.ts';
import { replicaInProcess } from '../support/replica.ts';
import { failureOf, type SdkSubject, sdkCases, sdks, watched } from '../support/sdk-cases.ts';
import { sdkTenants } from '../support/sdk-tenants.ts';
import { eventually } from '../support/until.ts';

const [model, embeddingModel] = ['m', 'embeddings'];
const replicaKey = 'sk-of-the-replica';

describe.each(testEngines)('client libraries over the %s engine', (engine) => {
  const { tenants, keys } = sdkTenants(sdks.length, [embeddingModel]);
  const folder = mkdtempSync(join(tmpdir(), 'sluice-sdk-'));
  let replicas: Replica[];
  let gateway: GatewayProcess;

  beforeAll(async () => {
    const profile = 'tokens:ttft=2ms,itl=2ms';
    const options = { profile, apiKey: replicaKey, model };
    replicas = [await replicaInProcess(options), await replicaInProcess(options)];
    const rows = replicas.map(({ url }) => ({ url, api_key: replicaKey }));
    gateway = await gatewayProcess({
      config: {
        ...{ listen: { engine }, tenants, usage: { file: join(folder, 'usage.ndjson') } },
        models: [
          { name: model, replicas: rows },
          { name: embeddingModel, replicas: rows.slice(0, 1) },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway?.finish();
    for (const replica of replicas) await replica.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const attempts = (nonce: string) => replicas.flatMap((replica) => replica.ledger(nonce));

  describe.each(sdks.map((sdk, i) => ({ name: sdk.name, sdk, i })))('$name', ({ sdk, i }) => {
    const subject = (): SdkSubject => ({
      ...{ gateway, model, embeddingModel, keys: keys[i]!, repeatable: {}, callsTools: true },
      direct: { url: replicas[0]!.url, key: replicaKey },
      long: { maxTokens: 10_000, extra: { ignore_eos: true } },
      running: () => replicas.reduce((sum, replica) => sum + replica.stats().in_flight, 0),
    });
    const client = () => sdk.client({ url: gateway.url, key: keys[i]!.full, maxRetries: 0 });

    sdkCases(sdk, subject);

    test.each(['whole', 'streamed'] as const)(
      'every byte, every field and the bill, %s',
      async (how) => {
        const content = `nonce=exact-${i}-${how} [[utf8]] [[len=9]]`;
        const { fetch, exchanges } = watched();
        const key = keys[i]!.full;
        const watching = sdk.client({ url: gateway.url, key, maxRetries: 0, fetch });
        const extra = { chat_template_kwargs: { thinking: false }, top_k: 40 };
        const inputTokens = promptTokenCount(renderChat([{ role: 'user', content }]));
        const counted = { inputTokens, outputTokens: 9 };
        const told = await watching[how]({ model, content, extra });
        expect(told).toEqual({
          text: answerTo(content, 0, 9),
          call: undefined,
          ...counted,
          end: 'stop',
        });
        const called = await watching[how]({ model, content, extra, withTool: true });
        const input = { echo: answerTo(content, 0, 9) };
        expect(called).toEqual({
          text: '',
          call: { name: 'speak', input },
          ...counted,
          end: 'tool',
        });
        const seen = attempts(`exact-${i}-${how}`);
        expect(seen.map(({ bodySha256 }) => bodySha256).sort()).toEqual(
          exchanges.map(({ body }) => sha256(body)).sort(),
        );
        for (const { body } of exchanges) expect(JSON.parse(body)).toMatchObject(extra);
        for (const { head } of seen) {
          expect(head).toContain(`authorization: Bearer ${replicaKey}`);
          expect(head).not.toContain(key);
        }
        const ids = exchanges.map(({ response }) => response.headers.get('x-request-id'));
        await eventually('both are billed', () => billed(ids).length === 2);
        for (const event of billed(ids)) {
          expect(event).toMatchObject({
            ...{ tenant: 'full', key_id: 'key-of-full', outcome: 'ok' },
            ...{ input_tokens: inputTokens, output_tokens: 9, stream: how === 'streamed' },
          });
        }
      },
    );

    test.each(['fin-after=3', 'reset-after=3', 'fin-after=3;mid-event', 'error-event=3'])(
      'a stream broken by %s is an error behind an exact prefix',
      async (fault) => {
        const content = `[[len=20]] [[fault:${fault}]]`;
        let text = '';
        const onText = (piece: string): void => {
          text += piece;
        };
        const failure = await failureOf(client().streamed({ model, content, onText }));
        expect(failure).toBeDefined();
        expect(sdk.isStreamError(failure), `${failure}`).toBe(true);
        expect(text).toBe(answerTo(content, 0, 3));
      },
    );

    test('an answer cut short is a failure, never a short answer', async () => {
      const content = '[[len=20]] [[fault:fin-after=5]]';
      expect(await failureOf(client().whole({ model, content }))).toBeInstanceOf(Error);
    });
  });

  /** Usage events of the requests. */
  function billed(ids: readonly unknown[]): Record<string, unknown>[] {
    const text = readFileSync(join(folder, 'usage.ndjson'), 'utf8');
    const events = text.split('\n').filter((line) => line !== '');
    return events.map((line) => JSON.parse(line)).filter(({ req_id }) => ids.includes(req_id));
  }
});

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
