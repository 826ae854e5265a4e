/** What acceptors know of keys. */
import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import { keyTable, type LimitRowOf, refOf } from '../../../src/config/tenants.ts';
import { newKey, sha256Of } from '../../../src/protocol/api-key.ts';

const key = (id: string, more: object = {}) => ({ id, sha256: sha256Of(newKey()), ...more });

function tableOf(...tenants: object[]) {
  return tableWith(() => -1, tenants);
}

function tableWith(rowOf: LimitRowOf, tenants: object[]) {
  const replicas = [{ url: 'http://h:1', adapters: ['lora'] }];
  const loaded = configFromObject({
    models: [
      { name: 'a', aliases: ['alias'], cascade: { model: 'b' }, replicas },
      { name: 'b', replicas: [{ url: 'http://h:2' }] },
    ],
    splits: [{ name: 'chat', models: [{ model: 'a' }] }],
    tenants: tenants as never,
  });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  return keyTable(
    loaded.config,
    rowOf,
    () => -1,
    () => 0,
  );
}

test('the priority of a key is its tenant’s and its own, within bounds', () => {
  const keys = [key('plain'), key('more', { priority: 30 }), key('less', { priority: -100 })];
  const { keys: rows } = tableOf(
    { name: 't', priority: 80, keys },
    { name: 'u', priority: -20, keys: [key('low', { priority: -90 })] },
  );
  expect(rows.map(({ id, priority }) => [id, priority])).toEqual([
    ['plain', 80],
    ['more', 100],
    ['less', -20],
    ['low', -100],
  ]);
});

test('names of models, adapters and splits are what a key may ask for, each by itself', () => {
  const { keys } = tableOf(
    { name: 't', models: ['chat', 'alias'], keys: [key('k'), key('l', { models: ['chat'] })] },
    { name: 'u', models: ['lora'], keys: [key('m')] },
  );
  expect(keys.map(({ refs }) => refs)).toEqual([
    [refOf(2, 0), refOf(0, 0)],
    [refOf(2, 0)],
    [refOf(0, 1)],
  ]);
});

test('which model of a cascade a tenant wants is what its requests would say', () => {
  const wishes = ['large', 'small', 'auto'] as const;
  const { tenants } = tableOf(
    { name: 'default' },
    ...wishes.map((cascade) => ({ name: cascade, cascade })),
  );
  expect(tenants.map(({ cascade }) => cascade)).toEqual(['', 'large', 'small', '']);
});

test.each([
  ['the smaller of each', [4, 600], [2, 900], [2, 600]],
  ['the only ones', [0, 0], [2, 900], [2, 900]],
  ['one of each', [4, 0], [0, 900], [4, 900]],
  ['no larger ones', [4, 600], [9, 700], [4, 600]],
])('caps of a request for a model: %s', (_, ofTenant, ofModel, expected) => {
  const capsOf = ([max_n, max_context]: number[]) => ({ max_n, max_context });
  const { tenants } = tableOf({
    ...{ name: 't', limits: capsOf(ofTenant), model_limits: { b: capsOf(ofModel) } },
  });
  const [maxN, maxContext] = expected;
  expect(tenants[0]?.modelCaps).toEqual([[1, { maxN, maxContext }]]);
  const [tenantsN, tenantsContext] = ofTenant;
  expect(tenants[0]).toMatchObject({ maxN: tenantsN, maxContext: tenantsContext });
});

test('a model has a row for what is counted and caps for single requests, each only where there are some', () => {
  const model_limits = { a: { concurrency: 1 }, b: { max_n: 2 } };
  const rowOf: LimitRowOf = (_, model) => (model === 'a' ? 7 : -1);
  const [row] = tableWith(rowOf, [{ name: 't', model_limits }]).tenants;
  expect(row).toMatchObject({
    ...{ limitRow: -1, modelRows: [[0, 7]] },
    modelCaps: [[1, { maxN: 2, maxContext: 0 }]],
  });
});
