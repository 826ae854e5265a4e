/** Who is let in: keys by their digests, of which no two are near each other. */
import { expect, test } from 'vitest';
import { capsFor, isHolder, KeyRing, mayUse } from '../../../src/acceptor/key-ring.ts';
import { type KeyRow, refOf } from '../../../src/config/tenants.ts';
import { errors } from '../../../src/errors/catalogue.ts';
import { keyOfHeaders, newKey, sha256Of } from '../../../src/protocol/api-key.ts';
import { ownerOf } from '../../../src/protocol/response-key.ts';

const [first, second, third] = [newKey(), newKey(), newKey()];
const nowMs = 1_800_000_000_000;

const row = (id: string, key: string, more: Partial<KeyRow> = {}): KeyRow => ({
  ...{ id, tenant: 0, sha256: sha256Of(key), expiresMs: 0, isDisabled: false },
  ...{ priority: 0, refs: null },
  ...more,
});

const free = {
  ...{ limitRow: -1, modelRows: [], mayPrioritise: false, cascade: '' as const, budgetRow: -1 },
  ...{ series: 3, logSample: undefined, maxN: 0, maxContext: 0, modelCaps: [] },
};

const ring = new KeyRing({
  isRequired: true,
  tenants: [{ ...free, name: 'acme' }],
  keys: [
    row('ci', first, { priority: 5 }),
    row('old', second, { expiresMs: nowMs }),
    row('off', third, { isDisabled: true, refs: [refOf(1, 2)] }),
  ],
});

test('a bearer token and x-api-key are the same key', () => {
  const holder = {
    ...{
      tenant: 0,
      tenantName: 'acme',
      owner: ownerOf('acme'),
      keyId: 'ci',
      priority: 5,
      refs: undefined,
    },
    ...{
      limitRow: -1,
      modelRows: new Map(),
      mayPrioritise: false,
      cascade: '' as const,
      budgetRow: -1,
    },
    ...{ series: 3, logSample: undefined, maxN: 0, maxContext: 0, modelCaps: new Map() },
  };
  expect(ring.find(`Bearer ${first}`, '', nowMs)).toEqual(holder);
  expect(ring.find(`bearer   ${first} `, '', nowMs)).toEqual(holder);
  expect(ring.find('', first, nowMs)).toEqual(holder);
  expect(ring.find('Basic dXNlcjpwdw==', first, nowMs)).toEqual(holder);
});

test('no key, another key, one that is off, one whose time is over', () => {
  expect(ring.find('', '', nowMs)).toBe(errors.KEY_REQUIRED);
  expect(ring.find('Basic dXNlcjpwdw==', '', nowMs)).toBe(errors.KEY_REQUIRED);
  expect(ring.find(`Bearer ${'x'.repeat(600)}`, '', nowMs)).toBe(errors.KEY_REQUIRED);
  expect(ring.find(`Bearer ${newKey()}`, '', nowMs)).toBe(errors.KEY_UNKNOWN);
  expect(ring.find(`Bearer ${first.slice(0, -1)}`, '', nowMs)).toBe(errors.KEY_UNKNOWN);
  expect(ring.find(`Bearer ${third}`, '', nowMs)).toBe(errors.KEY_DISABLED);
  expect(ring.find(`Bearer ${second}`, '', nowMs - 1)).toSatisfy(isHolder);
  expect(ring.find(`Bearer ${second}`, '', nowMs)).toBe(errors.KEY_EXPIRED);
});

test('keys whose digests begin alike are told apart', () => {
  const other = `${sha256Of(first).slice(0, 8)}${'0'.repeat(56)}`;
  const twin = new KeyRing({
    isRequired: true,
    tenants: [{ ...free, name: 'acme' }],
    keys: [row('twin', first, { sha256: other }), row('ci', first)],
  });
  expect(twin.find('', first, nowMs)).toMatchObject({ keyId: 'ci' });
});

test('a model is allowed by itself, an adapter of it is not', () => {
  const holder = {
    ...{ tenant: 0, tenantName: 'acme', owner: ownerOf('acme'), keyId: 'ci', priority: 0 },
    ...{
      limitRow: -1,
      modelRows: new Map(),
      mayPrioritise: false,
      cascade: '' as const,
      budgetRow: -1,
    },
    ...{ series: 3, logSample: undefined, maxN: 0, maxContext: 0, modelCaps: new Map() },
  };
  const refs = new Set([refOf(1, 0), refOf(2, 256)]);
  expect(mayUse({ ...holder, refs }, 1, 0)).toBe(true);
  expect(mayUse({ ...holder, refs }, 1, 1)).toBe(false);
  expect(mayUse({ ...holder, refs }, 2, 256)).toBe(true);
  expect(mayUse({ ...holder, refs }, 3, 0)).toBe(false);
  expect(mayUse({ ...holder, refs: undefined }, 3, 0)).toBe(true);
});

test('a request is held against the caps for its model, else against those of its tenant', () => {
  const ofModel = { maxN: 2, maxContext: 600 };
  const capped = new KeyRing({
    isRequired: true,
    tenants: [
      { ...free, name: 'acme', maxN: 4, maxContext: 900, modelCaps: [[1, ofModel]] },
      { ...free, name: 'bob' },
    ],
    keys: [row('one', first), row('two', second), row('bobs', third, { tenant: 1 })],
  });
  const capsOf = (key: string, model: number) => {
    const holder = capped.find('', key, nowMs);
    if (!isHolder(holder)) throw new Error(holder.code);
    const { maxN, maxContext } = capsFor(holder, model);
    return { maxN, maxContext };
  };
  for (const key of [first, second]) {
    expect(capsOf(key, 1)).toEqual(ofModel);
    expect(capsOf(key, 0)).toEqual({ maxN: 4, maxContext: 900 });
  }
  expect(capsOf(third, 1)).toEqual({ maxN: 0, maxContext: 0 });
  expect(capsFor(undefined, 1)).toEqual({ maxN: 0, maxContext: 0 });
});

test('a key has 256 bits, and where it stands in a head it is found', () => {
  expect(newKey()).toMatch(/^sk-sluice-[A-Za-z0-9_-]{43}$/);
  expect(new Set(Array.from({ length: 100 }, newKey)).size).toBe(100);
  expect(keyOfHeaders('Bearer a b', 'c')).toBe('c');
});
