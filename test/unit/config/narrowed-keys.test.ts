/** Which names a reload gives another meaning, and who may use them until it does. */
import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import { namesOf } from '../../../src/config/model-names.ts';
import { movedRefs, narrowedKeys } from '../../../src/config/narrowed-keys.ts';
import type { ConfigInput } from '../../../src/config/schema.ts';
import { type KeyRow, type KeyTable, refOf } from '../../../src/config/tenants.ts';

type Aliases = Readonly<Record<string, string[]>>;
type Weights = Readonly<Record<string, number>>;

function configWith(splits: Readonly<Record<string, Weights>>, aliases: Aliases = {}) {
  const input: ConfigInput = {
    models: ['a', 'b', 'c'].map((name, i) => ({
      name,
      aliases: aliases[name] ?? [],
      replicas: [{ url: `http://h:${i + 1}`, ...(name === 'c' && { adapters: ['lora'] }) }],
    })),
    splits: Object.entries(splits).map(([name, weights]) => ({
      name,
      aliases: aliases[name] ?? [],
      models: Object.entries(weights).map(([model, weight]) => ({ model, weight })),
    })),
  };
  const loaded = configFromObject(input);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  return loaded.config;
}
type Config = ReturnType<typeof configWith>;

/** Names of `from` whose ref is among those that are moved. */
function moved(from: Config, to: Config): string[] {
  const refs = movedRefs(from, to);
  return [...namesOf(from)].flatMap(([name, { model, adapter }]) =>
    refs.has(refOf(model, adapter)) ? [name] : [],
  );
}

test('numbers, order and weights of splits are no meaning of theirs', () => {
  const from = configWith({ s: { a: 1 }, t: { a: 1, b: 3 }, u: { lora: 1 } });
  const to = configWith({ new: { c: 1 }, u: { lora: 2 }, t: { b: 1, a: 9 }, s: { a: 5 } });
  expect(moved(from, to)).toEqual([]);
});

test.each([
  ['another model', { a: 1 }, { b: 1 }],
  ['one more', { a: 1 }, { a: 1, b: 1 }],
  ['one that had no share', { a: 1, b: 0 }, { a: 1, b: 1 }],
  ['one less', { a: 1, b: 1 }, { a: 1, b: 0 }],
  ['an adapter', { c: 1 }, { lora: 1 }],
])('%s behind a split is one', (_, before, after) => {
  const from = configWith({ s: before, t: { a: 1 } }, { s: ['alias'] });
  expect(moved(from, configWith({ t: { a: 1 }, s: after }, { s: ['alias'] }))).toEqual([
    's',
    'alias',
  ]);
});

test('a name that goes, or comes to stand for something else, moves what it stood for, by all its names', () => {
  const from = configWith({ s: { a: 1 }, t: { b: 1 } }, { b: ['alias'] });
  expect(moved(from, configWith({ t: { b: 1 } }, { b: ['alias'] }))).toEqual(['s']);
  expect(moved(from, configWith({ s: { a: 1 }, t: { b: 1 } }, { c: ['alias'] }))).toEqual([
    'b',
    'alias',
  ]);
});

test('an adapter that no replica has from the start any more stays where engines load it', () => {
  const withAdapters = (adapters: string[], loaded: readonly string[]) => {
    const lora = { adapters: loaded.map((name) => ({ name, path: `/of/${name}` })) };
    const models = [{ name: 'a', lora, replicas: [{ url: 'http://h:1', adapters }] }];
    const read = configFromObject({ models });
    if (!read.ok) throw new Error(JSON.stringify(read.problems));
    return read.config;
  };
  const from = withAdapters(['sql', 'law'], ['sql']);
  expect(moved(from, withAdapters([], ['sql']))).toEqual(['law']);
});

test('a key gets none that is moved and keeps those it had; who may use all may do so', () => {
  const key = (sha256: string, refs: KeyRow['refs']): KeyRow => ({
    ...{ id: 'k', tenant: 0, sha256, expiresMs: 0, isDisabled: false, priority: 0, refs },
  });
  const table = (...keys: KeyRow[]): KeyTable => ({ isRequired: true, tenants: [], keys });
  const before = table(key('has', [1, 2]), key('all', null), key('loses', [1, 2]));
  const next = table(
    key('has', [1, 2, 3, 4]),
    key('all', [3]),
    key('loses', [4]),
    key('new', [1, 4]),
    key('free', null),
  );
  const { keys } = narrowedKeys(next, before, new Set([1, 3]));
  expect(keys.map(({ sha256, refs }) => [sha256, refs])).toEqual([
    ['has', [1, 2, 4]],
    ['all', [3]],
    ['loses', [4]],
    ['new', [4]],
    ['free', null],
  ]);
});
