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
function passedOn(bytesMax = 4) {
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
  const answer = new WholeAnswer(sink, facts, bytesMax);
  return {
    calls,
    text: () => text,
    push: (part: string) => {
      answer.push(Buffer.from(part));
      return text;
    },
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
