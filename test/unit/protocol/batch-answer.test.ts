import { describe, expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { NoParts, splitAnswer } from '../../../src/protocol/batch-answer.ts';

const seed = Number(process.env.SEED ?? Date.now() >>> 0);
console.info(`SEED=${seed}`);

const choice = (index: number, text: string): string =>
  `{"index":${index},"text":"${text}","logprobs":null,"finish_reason":"stop"}`;

const answer = (choices: readonly string[], usage = '"usage":null'): string =>
  `{"id":"cmpl-1","object":"text_completion","created":5,"model":"m","choices":[${choices.join(' , ')}],${usage}}`;

function split(text: string, promptBytes: readonly number[]): readonly string[] | NoParts {
  const parts = splitAnswer(Buffer.from(text), promptBytes);
  if (!Array.isArray(parts)) return parts as NoParts;
  return parts.map(({ body }) => Buffer.concat(body).toString());
}

interface Whole {
  readonly choices: readonly { readonly index: number; readonly text: string }[];
  readonly usage: Readonly<Record<string, number>>;
}

const parsed = (text: string, promptBytes: readonly number[]): Whole[] =>
  (split(text, promptBytes) as readonly string[]).map((part) => JSON.parse(part) as Whole);

describe('each prompt gets an answer of its own', () => {
  test('with the bytes of its choice, and index 0', () => {
    const both = [choice(0, 'one'), choice(1, 'two')];
    expect(split(answer(both), [3, 4])).toEqual([
      answer([choice(0, 'one')]),
      answer([choice(0, 'two')]),
    ]);
  });

  test('by index, not by place', () => {
    const mixed = [choice(2, 'c'), choice(0, 'a'), choice(1, 'b')];
    expect(parsed(answer(mixed), [1, 1, 1]).map(({ choices }) => choices[0]!.text)).toEqual([
      ...['a', 'b', 'c'],
    ]);
  });

  test('whatever stands in front of the choices or behind the usage', () => {
    const usage = '"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}';
    const text = `{ ${usage} , "x":[{"index":9}], "choices" : [ ${choice(1, 'b')},${choice(0, '\\u00e4"'.replace('"', '\\"'))} ] ,"y":{} }`;
    const parts = parsed(text, [1, 1]);
    expect(parts.map(({ choices }) => choices[0]!.text)).toEqual(['ä"', 'b']);
    expect(parts.map(({ usage: own }) => own.total_tokens)).toEqual([4, 2]);
    expect(parts[0]).toMatchObject({ x: [{ index: 9 }], y: {} });
  });
});

describe('usage is apportioned', () => {
  test('prompts by their bytes, completions by their texts, and the sums are exact', () => {
    const details = '"prompt_tokens_details":{"cached_tokens":3}';
    const usage = `"usage":{"prompt_tokens":10,"total_tokens":17,"completion_tokens":7,${details}}`;
    const parts = parsed(answer([choice(0, 'aaaa'), choice(1, 'aa')], usage), [30, 10]);
    expect(parts.map(({ usage: own }) => own)).toEqual([
      {
        ...{ prompt_tokens: 8, total_tokens: 13, completion_tokens: 5 },
        prompt_tokens_details: { cached_tokens: 2 },
      },
      {
        ...{ prompt_tokens: 2, total_tokens: 4, completion_tokens: 2 },
        prompt_tokens_details: { cached_tokens: 1 },
      },
    ]);
  });

  test('in sum over any answer', () => {
    const random = createPrng(seed);
    for (let round = 0; round < 300; round++) {
      const count = 1 + random.below(20);
      const texts = Array.from({ length: count }, () => 'x'.repeat(random.below(9)));
      const [prompt, completion] = [random.below(5000), random.below(5000)];
      const usage = `"usage":{"prompt_tokens":${prompt},"completion_tokens":${completion}}`;
      const bytes = texts.map(() => 2 + random.below(1000));
      const parts = parsed(
        answer(
          texts.map((text, i) => choice(i, text)),
          usage,
        ),
        bytes,
      );
      const sum = (key: string): number =>
        parts.reduce((all, { usage: own }) => all + own[key]!, 0);
      expect(sum('prompt_tokens')).toBe(prompt);
      expect(sum('completion_tokens')).toBe(completion);
      expect(sum('total_tokens')).toBe(prompt + completion);
    }
  });

  test('as far as it is known and can be true', () => {
    const usage = '"usage":{"prompt_tokens":90071992547409,"completion_tokens":4,"other":1}';
    const parts = parsed(answer([choice(0, ''), choice(1, '')], usage), [2, 2]);
    expect(parts.map(({ usage: own }) => own)).toEqual([
      { completion_tokens: 2 },
      { completion_tokens: 2 },
    ]);
  });
});

describe('no parts come of', () => {
  test.each([
    ['too few choices', answer([choice(0, 'a')])],
    ['too many choices', answer([choice(0, 'a'), choice(1, 'b'), choice(2, 'c')])],
    ['an index that is there twice', answer([choice(1, 'a'), choice(1, 'b')])],
    ['an index out of range', answer([choice(0, 'a'), choice(2, 'b')])],
    ['an index below zero', answer([choice(0, 'a'), choice(-1, 'b')])],
    ['an index that is no number', answer([choice(0, 'a'), '{"index":"1","text":"b"}'])],
    ['a choice without an index', answer([choice(0, 'a'), '{"text":"b"}'])],
    ['a choice with two', answer([choice(0, 'a'), '{"index":1,"index":0,"text":"b"}'])],
    ['a choice that is no object', answer([choice(0, 'a'), '"b"'])],
    ['choices that are no list', '{"choices":{}}'],
    ['two lists of choices', '{"choices":[],"choices":[]}'],
    ['another spelling of a key', answer([choice(0, 'a'), choice(1, 'b')], '"ch\\u006fices":[1]')],
    ['no choices', '{"id":"x"}'],
    ['half an answer', answer([choice(0, 'a'), choice(1, 'b')]).slice(0, -1)],
    ['bytes behind it', `${answer([choice(0, 'a'), choice(1, 'b')])}}`],
    ['nothing', ''],
    ['a list', '[]'],
  ])('%s', (_, text) => {
    expect(split(text, [1, 1])).toBe(NoParts.malformed);
  });

  test('an error', () => {
    expect(split('{"error":{"message":"no"}}', [1, 1])).toBe(NoParts.error);
  });
});
