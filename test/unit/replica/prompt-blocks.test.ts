import { expect, test } from 'vitest';
import { promptBlocks } from '../../../src/replica/prompt-blocks.ts';
import { promptTokenCount, promptTokenIds } from '../../../src/replica/tokens.ts';

const text = 'The quick brown fox jumps over the lazy dog, again and again. '.repeat(20);

test('equal beginnings have equal ids, and nothing after a difference has', () => {
  const blocks = promptBlocks(text, 16);
  expect(blocks.length).toBe(Math.floor(promptTokenCount(text) / 16));
  expect(new Set(blocks).size).toBe(blocks.length);
  const other = promptBlocks(`${text.slice(0, 480)}#${text.slice(481)}`, 16);
  expect(other.slice(0, 10)).toEqual(blocks.slice(0, 10));
  for (let i = 10; i < blocks.length; i++) expect(other[i]).not.toBe(blocks[i]);
});

test('a longer prompt goes on where the shorter one ends', () => {
  const blocks = promptBlocks(text, 16);
  expect(promptBlocks(text + text, 16).slice(0, blocks.length)).toEqual(blocks);
});

test('a prompt of ids has the blocks of its text', () => {
  expect(promptBlocks(promptTokenIds(text), 16)).toEqual(promptBlocks(text, 16));
});

test('ids are never negative, and any list of numbers has some', () => {
  const odd = Array.from({ length: 64 }, (_, i) => (i % 2 === 0 ? -i / 3 : 2 ** 40 + i));
  for (const id of promptBlocks(odd, 16)) expect(id).toBeGreaterThanOrEqual(0);
  expect(promptBlocks('', 16).length).toBe(0);
});
