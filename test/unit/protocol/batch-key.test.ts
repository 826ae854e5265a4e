import { describe, expect, test } from 'vitest';
import { batchKey, isBatchable } from '../../../src/protocol/batch-key.ts';
import { createRequestFacts } from '../../../src/protocol/request-facts.ts';
import { scanRequest } from '../../../src/protocol/request-scanner.ts';

const scan = (text: string) => {
  const body = Buffer.from(text);
  const facts = createRequestFacts();
  expect(scanRequest(body, body.length, facts)).toBe(0);
  return { body, facts };
};

const keyOf = (text: string): string => {
  const { body, facts } = scan(text);
  const pair = new Int32Array(2);
  batchKey(body, body.length, facts, pair);
  return pair.join();
};

const promptOf = (text: string): string => {
  const { body, facts } = scan(text);
  return body.subarray(facts.promptStart, facts.promptStart + facts.promptBytes).toString();
};

describe('a request may be in a batch', () => {
  test.each([
    '{"model":"m","prompt":"a"}',
    '{"prompt" :\n "a" , "model":"m","n":1,"best_of":1,"stream":false}',
    '{"model":"m","prompt":"a","n":null,"best_of":null}',
    '{"model":"m","pr\\u006fmpt":"a"}',
    '{"model":"m","input":"b","prompt":"a"}',
  ])('%s', (text) => {
    expect(isBatchable(scan(text).facts)).toBe(true);
    expect(promptOf(text)).toBe('"a"');
  });

  test.each([
    ['a list of prompts', '{"model":"m","prompt":["a"]}'],
    ['token ids', '{"model":"m","prompt":[1,2]}'],
    ['no prompt', '{"model":"m","prompt":null}'],
    ['a stream', '{"model":"m","prompt":"a","stream":true}'],
    ['several choices', '{"model":"m","prompt":"a","n":2}'],
    ['the best of several', '{"model":"m","prompt":"a","best_of":3}'],
    ['messages before it', '{"model":"m","messages":[],"prompt":"a"}'],
    ['messages behind it', '{"model":"m","prompt":"a","messages":[]}'],
    ['a text that is its input', '{"model":"m","input":"a"}'],
  ])('not %s', (_, text) => {
    expect(isBatchable(scan(text).facts)).toBe(false);
  });
});

describe('the key', () => {
  const plain = '{"model":"m","prompt":"a","temperature":0}';

  test.each([
    ['another prompt', '{"model":"m","prompt":"quite another \\" one","temperature":0}'],
    ['no prompt to speak of', '{"model":"m","prompt":"","temperature":0}'],
  ])('is the same for %s', (_, text) => {
    expect(keyOf(text)).toBe(keyOf(plain));
  });

  test.each([
    ['another model', '{"model":"n","prompt":"a","temperature":0}'],
    ['other sampling', '{"model":"m","prompt":"a","temperature":1}'],
    ['another order', '{"prompt":"a","model":"m","temperature":0}'],
    ['white space', '{"model":"m","prompt": "a","temperature":0}'],
    ['more behind it', '{"model":"m","prompt":"a","temperature":0,"seed":1}'],
  ])('differs for %s', (_, text) => {
    expect(keyOf(text)).not.toBe(keyOf(plain));
  });

  test('is never that of requests without one', () => {
    for (let i = 0; i < 1000; i++) expect(keyOf(`{"prompt":"a","s":${i}}`)).not.toBe('0,0');
  });
});
