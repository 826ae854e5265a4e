/** How many values a body holds, before and after it is parsed. */
import { expect, test } from 'vitest';
import { hasAtMost, holdsAtMost } from '../../../src/tokenizer/values.ts';

const holds = (text: string, most: number): boolean =>
  holdsAtMost(Buffer.from(text), 0, Buffer.byteLength(text), most);

test('values are counted before they are parsed, texts are one each', () => {
  expect(holds('[1,2,3]', 4)).toBe(true);
  expect(holds('[1,2,3]', 3)).toBe(false);
  expect(holds('["a,b,[{","\\",,,"]', 3)).toBe(true);
  expect(holds(`[${'[],'.repeat(1000)}[]]`, 1500)).toBe(false);
  expect(holds('["open', 100)).toBe(false);
});

test('and after', () => {
  expect(hasAtMost({ a: [1, 2], b: 'text', c: null }, 5)).toBe(true);
  expect(hasAtMost({ a: [1, 2], b: 'text', c: null }, 4)).toBe(false);
  expect(hasAtMost(undefined, 0)).toBe(true);
});
