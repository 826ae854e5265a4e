/** Forms and unusual bodies through a whole gateway: what is read in two ways is refused, the rest is the engine's. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { post } from '../support/scenario.ts';

const field = (name: string, value: string): string =>
  `--B\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const end = '--B--\r\n';
const form = field('model', 'm') + end;

describe.each(testEngines)('engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;

  beforeAll(async () => {
    replica = await replicaInProcess();
    const models = [{ name: 'm', replicas: [{ url: replica.url }] }];
    gateway = await gatewayProcess({ config: { listen: { engine }, models } });
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
  });

  const send = (body: string, parameters = 'boundary=B') =>
    post(
      gateway.url,
      body,
      { 'content-type': `multipart/form-data; ${parameters}` },
      '/v1/audio/transcriptions',
    );

  test.each([
    ['behind LF', `\n${form}`, undefined, 'invalid_multipart', null],
    ['two boundaries', form, 'boundary=B; boundary=C', 'invalid_multipart', 'content-type'],
    ['another charset', form, 'charset=utf-7; boundary=B', 'invalid_multipart', 'content-type'],
    ['an adapter', field('lora_path', 'x') + form, undefined, 'unsupported_parameter', 'lora_path'],
    ['capitals', field('Model', 'x') + form, undefined, 'unknown_parameter', 'Model'],
  ])('refused: %s', async (_, body, parameters, code, param) => {
    const { status, text } = await send(body, parameters);
    expect(status).toBe(400);
    expect(JSON.parse(text).error).toMatchObject({ code, param });
    expect(replica.stats().started).toBe(0);
  });

  test.each([
    ['{"model":"m","messages":[],"Model":"x"}', 'unknown_parameter', 'Model'],
    ['{"model":"m","messages":[],"lora_path":"x"}', 'unsupported_parameter', 'lora_path'],
  ])('refused: %s', async (body, code, param) => {
    const { status, text } = await post(gateway.url, body);
    expect(status).toBe(400);
    expect(JSON.parse(text).error).toMatchObject({ code, param });
    expect(replica.stats().started).toBe(0);
  });

  test('a charset on either side, a line break first, and a stored prompt go to the replica', async () => {
    for (const parameters of ['charset=UTF-8; boundary=B', 'boundary=B; charset=utf-8']) {
      expect((await send(form, parameters)).status, parameters).toBe(200);
    }
    expect((await send(`\r\n${form}`)).status).toBe(200);
    const stored = { model: 'm', input: null, prompt: { id: 'pmpt_1' } };
    await post(gateway.url, stored, {}, '/v1/responses');
    expect(replica.stats().started).toBe(4);
  });
});
