/** What threads are told of models. */
import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import { modelRows } from '../../../src/gateway/start-data.ts';

test('a price that nobody adds up is none: no stream is asked for its usage because of it', () => {
  const price = { input: 1, output: 2 };
  const priceWith = (usage: object) => {
    const replicas = [{ url: 'http://127.0.0.1:9001' }];
    const loaded = configFromObject({ usage, models: [{ name: 'm', price, replicas }] });
    if (!loaded.ok) throw new Error(loaded.problems[0]?.message);
    return modelRows(loaded.config)[0]?.price;
  };
  expect(priceWith({})).toBeUndefined();
  expect(priceWith({ file: '/tmp/usage.ndjson' })).toBeDefined();
});
