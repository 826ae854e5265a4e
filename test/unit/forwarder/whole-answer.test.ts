import { expect, test } from 'vitest';
import type { AnswerFacts } from '../../../src/forwarder/answer.ts';
import { failures } from '../../../src/forwarder/failure.ts';
import { WholeAnswer, type WholeSink } from '../../../src/forwarder/whole-answer.ts';

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
  const sink: WholeSink = {
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
    askAgain: () => calls.push('askAgain'),
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

test('a refusal of an option that was added is not passed on, whatever its type', () => {
  const refusal = `{"error":"unknown 'stream_options'"}`;
  for (const isJson of [true, false]) {
    const answer = passedOn(100, { status: 400, isJson, mayAskAgain: true });
    answer.push(refusal.slice(0, 20));
    answer.push(refusal.slice(20));
    expect(answer.calls).toEqual([]);
    answer.end();
    expect(answer.calls).toEqual(['askAgain']);
  }
});

test('a refusal is passed on that is of something else, cut, too long, or of nothing that was added', () => {
  const refusal = `{"error":"unknown 'stream_options'"}`;
  const of = (body: string, bytesMax: number, more: object, failure?: typeof failures.reset) => {
    const answer = passedOn(bytesMax, { status: 400, isJson: true, ...more });
    answer.push(body);
    answer.end(failure);
    return answer.calls;
  };
  const added = { mayAskAgain: true };
  expect(of('{"error":"max_tokens"}', 100, added)).toEqual(['whole', 'complete']);
  expect(of(refusal, 100, {})).toEqual(['whole', 'complete']);
  expect(of(refusal, 4, added)).toEqual(['complete']);
  expect(of(refusal, 100, added, failures.reset)).toEqual(['fail']);
  expect(of(refusal.slice(0, -2), 100, { ...added, framed: false })).toEqual(['fail']);
});
