/**
 * The client libraries that people use, against a gateway with keys over a real engine that has a key of
 * its own, on both HTTP engines.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe } from 'vitest';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { type LlamaServer, llamaServer } from '../support/llama-server.ts';
import { sdkCases, sdks } from '../support/sdk-cases.ts';
import { sdkTenants } from '../support/sdk-tenants.ts';

const [model, embeddingModel] = ['tiny', 'tiny-embeddings'];
const key = 'sk-of-the-engine';
/** The vocabulary brings no template, and the engine's own does not mention tools. */
const template = fileURLToPath(new URL('tools.jinja', import.meta.url));
const servers: LlamaServer[] = [];

beforeAll(async () => {
  servers.push(
    await llamaServer({ name: model, key, flags: ['--chat-template-file', template] }),
    await llamaServer({
      name: embeddingModel,
      key,
      flags: ['--embeddings', '--pooling', 'mean'],
    }),
  );
});

afterAll(async () => {
  for (const server of servers) await server.close();
});

describe.each(testEngines)('client libraries over the %s engine', (engine) => {
  const { tenants, keys } = sdkTenants(sdks.length, [embeddingModel]);
  let gateway: GatewayProcess;

  beforeAll(async () => {
    const [chat, embeddings] = servers.map(({ url }) => ({ url, api_key: key }));
    gateway = await gatewayProcess({
      config: {
        ...{ listen: { engine }, tenants },
        models: [
          { name: model, replicas: [{ ...chat!, max_in_flight: 4 }] },
          { name: embeddingModel, replicas: [embeddings!] },
        ],
      },
    });
  });

  afterAll(() => gateway?.close());

  describe.each(sdks.map((sdk, i) => ({ name: sdk.name, sdk, i })))('$name', ({ sdk, i }) => {
    sdkCases(sdk, () => ({
      ...{ gateway, model, embeddingModel, keys: keys[i]!, callsTools: false },
      direct: { url: servers[0]!.url, key },
      repeatable: { temperature: 0, cache_prompt: false },
      long: { maxTokens: 1500, extra: { ignore_eos: true } },
      running: () => servers[0]!.busySlots(),
    }));
  });
});
