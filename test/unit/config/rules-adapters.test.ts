/** Rules about the names of adapters. */
import { expect, test } from 'vitest';
import { m, problems, url } from './support.ts';

test.each([
  [
    'the name of its model',
    'aliases: [x], replicas: [{ url: "http://h:1", adapters: [m] }]',
    'models.0.name',
  ],
  [
    'an alias',
    'aliases: [x], replicas: [{ url: "http://h:1", adapters: [x] }]',
    'models.0.aliases.0',
  ],
])('an adapter may not have %s', (_, rest, first) => {
  const text = `models: [{ name: m, ${rest} }]`;
  const column = text.indexOf('adapters: [') + 'adapters: ['.length + 1;
  const path = 'models.0.replicas.0.adapters.0';
  expect(problems(text)).toEqual([`1:${column} ${path}: is the same as ${first}`]);
});

test('an adapter that is loaded has a name of its own, which a replica that keeps it may have too', () => {
  const lora = (...names: string[]): string =>
    `, lora: { adapters: [${names.map((name) => `{ name: ${name}, path: /p }`).join(', ')}] }`;
  const kept = m('a', url(1, ', adapters: [x]'), lora('x', 'y'));
  expect(problems(`models: [${kept}]`)).toEqual([]);
  const twice = m('a', url(1), lora('x', 'x'));
  expect(problems(`models: [${twice}]`)).toEqual([
    expect.stringMatching(
      /models\.0\.lora\.adapters\.1\.name: is the same as models\.0\.lora\.adapters\.0\.name$/,
    ),
  ]);
  const others = m('b', url(2), lora('z', 'y'));
  expect(problems(`models: [${kept}, ${others}]`)).toEqual([
    expect.stringMatching(
      /models\.1\.lora\.adapters\.1\.name: is the same as models\.0\.lora\.adapters\.1\.name$/,
    ),
  ]);
});

test('an adapter belongs to one model, whose replicas share it, and is listed once by each', () => {
  const a = m('a', `${url(1, ', adapters: [x, y]')}, ${url(2, ', adapters: [y, x]')}`);
  expect(problems(`models: [${a}]`)).toEqual([]);
  const b = m('b', url(3, ', adapters: [z, y]'));
  expect(problems(`models: [${a}, ${b}]`)).toEqual([
    expect.stringMatching(
      /^1:\d+ models\.1\.replicas\.0\.adapters\.1: is the same as models\.0\.replicas\.0\.adapters\.1$/,
    ),
  ]);
  expect(problems(`models: [${m('a', url(1, ', adapters: [x, y, x]'))}]`)).toEqual([
    expect.stringMatching(/models\.0\.replicas\.0\.adapters\.2: is listed twice$/),
  ]);
});
