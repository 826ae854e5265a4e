import { expect, test } from 'vitest';
import type { AnswerFacts, AnswerSink } from '../../../src/forwarder/answer.ts';
import { failures } from '../../../src/forwarder/failure.ts';
import { WholeAnswer } from '../../../src/forwarder/whole-answer.ts';

const facts: AnswerFacts = {
  status: 200,
  shape: 'whole',
  choices: 1,
  contentLength: -1,
  framed: true,
  isJson: false,
};

/** What of an answer larger than `bytesMax` has been passed on after each call. */
function passedOn(bytesMax = 4, more: Partial<AnswerFacts> = {}) {
  let text = '';
  const calls: string[] = [];
  const sink: AnswerSink = {
    committed: false,
    commit: () => {
      (sink as { committed: boolean }).committed = true;
      return true;
    },
    emit: (bytes) => {
      text += Buffer.from(bytes).toString();
    },
    whole: () => calls.push('whole'),
    token: () => {},
    progress: () => {},
    dropped: () => {},
    complete: () => calls.push('complete'),
    discard: () => calls.push('discard'),
    fail: () => calls.push('fail'),
  };
  const answer = new WholeAnswer(sink, { ...facts, ...more }, bytesMax);
  return {
    calls,
    text: () => text,
    push: (part: string) => {
      answer.push(Buffer.from(part));
      return text;
    },
    usage: () => answer.usage,
    end: (failure?: typeof failures.truncated) => answer.end(failure),
  };
}

test('the last two bytes of a large answer wait for its end', () => {
  const answer = passedOn();
  expect(answer.push('abc')).toBe('');
  expect(answer.push('def')).toBe('abcd');
  expect(answer.push('ghi')).toBe('abcdefg');
  answer.end();
  expect(answer.text()).toBe('abcdefghi');
  expect(answer.calls).toEqual(['complete']);
});

test('parts of one byte and of none change nothing', () => {
  const answer = passedOn();
  for (const part of ['abcdef', '', 'g', 'h', '', 'i']) answer.push(part);
  expect(answer.text()).toBe('abcdefg');
  answer.end();
  expect(answer.text()).toBe('abcdefghi');
});

test('a cut answer loses none of what came', () => {
  const answer = passedOn();
  answer.push('abcdefgh');
  answer.end(failures.truncated);
  expect(answer.text()).toBe('abcdefgh');
  expect(answer.calls).toEqual(['fail']);
});

test('a small answer leaves whole', () => {
  const answer = passedOn(100);
  answer.push('abc');
  answer.end();
  expect(answer.text()).toBe('');
  expect(answer.calls).toEqual(['whole', 'complete']);
});

test('the usage of a large answer is known once it has passed, and whatever follows it', () => {
  const answer = passedOn(16, { isJson: true, shape: 'openai-chat' });
  answer.push('{"id":"x","choices":[],"usage":{"prompt_tokens":7,"completion');
  expect(answer.usage()).toBeUndefined();
  answer.push('_tokens":5},"prompt_token_ids":[');
  expect(answer.usage()).toMatchObject({ prompt: 7, completion: 5 });
  answer.push('1234,'.repeat(20_000));
  answer.push('1]}');
  answer.end();
  expect(answer.usage()).toMatchObject({ prompt: 7, completion: 5 });
  expect(answer.calls).toEqual(['complete']);
});
