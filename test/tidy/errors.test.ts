import { expect, test } from 'vitest';
import { type ErrorName, errors } from '../../src/errors/catalogue.ts';
import { codeOf, readSources } from './source-text.ts';

const code = readSources('src')
  .filter(({ path }) => !path.startsWith('src/errors/'))
  .map(({ text }) => codeOf(text, 'keep'));

const isUsed = (name: string): boolean => {
  const word = new RegExp(`\\b${name}\\b`);
  return code.some((text) => word.test(text));
};

test('every entry of the error catalogue is used by the code', () => {
  const names = Object.keys(errors) as ErrorName[];
  expect(names.filter((name) => !isUsed(name))).toEqual([]);
});

test('a name that only the catalogue or a comment has is not used', () => {
  expect(isUsed('MODEL_NOT_FOUND')).toBe(true);
  expect(isUsed('MODEL_FORBIDDEN')).toBe(false);
});
