import { expect, test } from 'vitest';
import { parseNewReplica } from '../../../src/config/new-replica.ts';

test('a replica added at run time has the defaults of the file', () => {
  expect(parseNewReplica({ model: 'm', name: 'r9', url: 'http://h:1/' })).toEqual({
    ok: true,
    value: {
      model: 'm',
      name: 'r9',
      url: 'http://h:1',
      weight: 1,
      max_in_flight: 256,
      api_key: '',
      api_key_header: 'authorization',
      headers: {},
      prefill_us: 21.2,
      resident_us: 0.06,
      kv_tokens: 0,
      adapters: [],
    },
  });
});

test('everything wrong with it is said at once, and no value of it', () => {
  const body = { url: 'http://user:hunter2@h', modl: 'm', weight: 'hunter2' };
  expect(parseNewReplica(body)).toEqual({
    ok: false,
    message:
      'url must not contain credentials; use api_key; name is required; weight must be a number; model is required; unknown key modl',
  });
  expect(parseNewReplica(null)).toEqual({ ok: false, message: 'body has no value' });
  expect(parseNewReplica([])).toEqual({ ok: false, message: 'body must be a mapping of keys' });
});
