import { expect, test } from 'vitest';
import { createRequestFacts } from '../../../src/protocol/request-facts.ts';
import { scanRequest } from '../../../src/protocol/request-scanner.ts';

const promptsOf = (prompt: unknown): number => {
  const body = Buffer.from(JSON.stringify({ model: 'm', prompt }));
  const facts = createRequestFacts();
  expect(scanRequest(body, body.length, facts)).toBe(0);
  return facts.prompts;
};

test.each([
  ['a text', 'a, [b], "c"', 1],
  ['token ids', [1, 2, 3], 1],
  ['nothing', [], 1],
  ['one text in a list', ['a'], 1],
  ['texts with commas, brackets and quotes', ['a,b', '[1,2]', 'c"],"d', ''], 4],
  ['objects with commas and lists', [{ a: 1, b: [2, 3] }, { c: '}' }, 'x'], 3],
  ['lists of ids', [[1, 2], [3], []], 3],
])('%s', (_, prompt, expected) => {
  expect(promptsOf(prompt)).toBe(expected);
});

test('a request without a prompt has one', () => {
  const body = Buffer.from('{"model":"m","messages":[[1],[2]]}');
  const facts = createRequestFacts();
  facts.prompts = 7;
  scanRequest(body, body.length, facts);
  expect(facts.prompts).toBe(1);
});

test('white space between prompts does not matter', () => {
  const body = Buffer.from('{"model":"m","prompt": [ "a" ,\n "b" ] }');
  const facts = createRequestFacts();
  expect(scanRequest(body, body.length, facts)).toBe(0);
  expect(facts.prompts).toBe(2);
});
