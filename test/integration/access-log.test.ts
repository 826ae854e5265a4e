/** The access log says why a request failed: the code of the error and Envoy's flag. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { type Call, type CallOptions, call, reached } from '../support/traffic.ts';

describe.each(testEngines)('engine %s', (engine) => {
  let replicas: ReplicaProcess[];
  let gateway: GatewayProcess;
  beforeAll(async () => {
    const settings = { model: 'm', profile: 'tokens:ttft=2ms,itl=2ms' };
    replicas = [await replicaProcess(settings), await replicaProcess(settings)];
    const [first] = replicas;
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        log: { level: 'info', sample: 1, pretty: 'never' },
        health: { interval: '10m' },
        retry: { budget: 1, budget_min: 1000 },
        queue: { max: 0 },
        models: [
          { name: 'm', replicas: replicas.map(({ url }) => ({ url })) },
          { name: 'one', replicas: [{ url: first!.url, max_in_flight: 1 }] },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway.finish();
    for (const replica of replicas) await replica.close();
  });

  const idOf = (nonce: string): string => `log-${engine}-${nonce}`;
  const start = (nonce: string, options: Partial<CallOptions> = {}): Call =>
    call(gateway.port, { nonce, headers: { 'x-request-id': idOf(nonce) }, ...options });

  const lineOf = (nonce: string): Promise<Record<string, unknown>> => logged(gateway, idOf(nonce));

  test.each([
    ['one attempt', { model: 'one', tags: '[[fault:status=500]]' }, 502, 'replica_error', 'UPE'],
    ['the last of two', { tags: '[[fault:reset=headers]]' }, 502, 'connection_reset', 'UR'],
    [
      'a broken stream',
      { stream: true, tags: '[[fault:fin-after=3]]' },
      200,
      'truncated_stream',
      'UC',
    ],
    ['a request refused', { model: 'none' }, 404, 'model_not_found', 'NR'],
  ])('%s', async (name, options, status, err, flag) => {
    const nonce = name.replaceAll(' ', '-');
    await start(nonce, options).ended;
    expect(await lineOf(nonce)).toMatchObject({ status, err, flag });
  });

  test('a full queue and a client that left', async () => {
    const gone = start('gone', { model: 'one', tags: '[[hold]]' });
    await reached(
      () => gateway.cluster(),
      ({ replicas: rows }) => rows.some(({ in_flight }) => in_flight === 1),
      'it is being served',
    );
    await start('full', { model: 'one' }).ended;
    expect(await lineOf('full')).toMatchObject({
      status: 429,
      err: 'rate_limit_exceeded',
      flag: 'UO',
    });
    gone.leave();
    expect(await lineOf('gone')).toMatchObject({ status: 499, err: 'client_gone', flag: 'DC' });
  });

  test('a good answer has no error', async () => {
    await start('good').ended;
    const line = await lineOf('good');
    expect(line).toMatchObject({ level: 'info', status: 200 });
    expect(line).not.toHaveProperty('err');
    expect(line).not.toHaveProperty('flag');
  });
});
