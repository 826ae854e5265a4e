/** Which replies are discarded for those of a larger model, by what engines really send. */
import { describe, expect, test } from 'vitest';
import { Judgement, ReplyJudge, type ReplyRules } from '../../../src/protocol/reply-judge.ts';
import type { AnswerShape } from '../../../src/protocol/routes.ts';

const none: ReplyRules = { refusal: false, finishReasons: [], header: '', field: '' };
const all: ReplyRules = {
  ...{ refusal: true, finishReasons: ['guardrail'], header: 'x-low', field: 'low' },
  meanLogprobBelow: -1,
};
const { passes, refused, unsure } = Judgement;

function judged(shape: AnswerShape, answer: unknown, rules = all, isEvent = false): Judgement {
  const text = typeof answer === 'string' ? answer : JSON.stringify(answer);
  // Within a larger buffer, as in a chunk.
  const bytes = Buffer.from(`"refusal"${text}"refusal"`);
  const judge = new ReplyJudge(rules, shape);
  const [start, end] = [9, bytes.length - 9];
  return isEvent ? judge.ofEvent(bytes, start, end) : judge.ofBody(bytes.subarray(start, end));
}

const message = (of: object, finish: string | null = 'stop', more: object = {}) => ({
  id: 'x',
  choices: [{ index: 0, message: { role: 'assistant', ...of }, finish_reason: finish, ...more }],
  usage: { prompt_tokens: 1, completion_tokens: 1 },
});
const delta = (of: object, finish: string | null = null) => ({
  choices: [{ index: 0, delta: of, logprobs: null, finish_reason: finish }],
});
const response = (part: object, more: object = {}) => ({
  ...{ id: 'r', object: 'response', status: 'completed', incomplete_details: null },
  output: [
    { type: 'reasoning', summary: [] },
    { type: 'message', content: [part] },
  ],
  ...more,
});
const filtered = { status: 'incomplete', incomplete_details: { reason: 'content_filter' } };

describe('a refusal', () => {
  test.each<[string, AnswerShape, unknown, Judgement]>([
    ['of a chat', 'openai-chat', message({ content: null, refusal: 'No.' }), refused],
    ['of no chat', 'openai-chat', message({ content: 'Yes.', refusal: null }), passes],
    ['of no text', 'openai-chat', message({ content: 'Yes.', refusal: '' }), passes],
    ['filtered', 'openai-chat', message({ content: '' }, 'content_filter'), refused],
    ['a reason of its own', 'openai-chat', message({ content: 'x' }, 'guardrail'), refused],
    ['stopped', 'openai-chat', message({ content: 'refusal content_filter' }, 'length'), passes],
    [
      'of one choice of two',
      'openai-chat',
      { choices: [...message({ content: 'x' }).choices, ...message({ refusal: 'No.' }).choices] },
      refused,
    ],
    [
      'of a completion',
      'openai-completions',
      { choices: [{ text: '', finish_reason: 'content_filter' }] },
      refused,
    ],
    [
      'of no completion',
      'openai-completions',
      { choices: [{ text: 'x', finish_reason: 'stop', stop_reason: 'refusal' }] },
      passes,
    ],
    [
      'of a message',
      'anthropic',
      { type: 'message', content: [], stop_reason: 'refusal' },
      refused,
    ],
    [
      'of no message',
      'anthropic',
      {
        type: 'message',
        content: [{ type: 'text', text: 'x', stop_reason: 'refusal' }],
        stop_reason: 'end_turn',
      },
      passes,
    ],
    ['of a response', 'responses', response({ type: 'refusal', refusal: 'No.' }), refused],
    [
      'of a filtered response',
      'responses',
      response({ type: 'output_text', text: '' }, filtered),
      refused,
    ],
    [
      'of no response',
      'responses',
      response({ type: 'output_text', text: 'refusal', annotations: [{ type: 'refusal' }] }),
      passes,
    ],
    ['of another shape', 'whole', message({ refusal: 'No.' }), refused],
    [
      'elsewhere',
      'openai-chat',
      { refusal: 'No.', stop_reason: 'refusal', choices: [], x: message({ refusal: 'No.' }) },
      passes,
    ],
    [
      'in what is no JSON',
      'openai-chat',
      `${JSON.stringify(message({ refusal: 'No.' })).slice(0, -1)}`,
      passes,
    ],
    [
      'of other types',
      'openai-chat',
      {
        choices: [
          7,
          null,
          { message: 'refusal', finish_reason: 5, logprobs: 3 },
          { message: { refusal: ['x'] } },
        ],
      },
      passes,
    ],
    ['of no choices', 'openai-chat', { choices: { message: { refusal: 'x' } } }, passes],
    ['a list', 'openai-chat', [message({ refusal: 'No.' })], passes],
  ])('%s (%s)', (_, shape, answer, expected) => {
    expect(judged(shape, answer)).toBe(expected);
    expect(judged(shape, answer, none)).toBe(passes);
  });

  test.each<[string, AnswerShape, unknown, Judgement]>([
    ['role', 'openai-chat', delta({ role: 'assistant', content: '', refusal: null }), passes],
    ['first piece', 'openai-chat', delta({ refusal: 'I' }), refused],
    ['text', 'openai-chat', delta({ content: 'refusal' }), passes],
    ['filtered', 'openai-chat', delta({}, 'content_filter'), refused],
    ['end', 'openai-chat', '[DONE]', passes],
    ['start', 'anthropic', { type: 'message_start', message: { stop_reason: null } }, passes],
    [
      'stop',
      'anthropic',
      { type: 'message_delta', delta: { stop_reason: 'refusal' }, usage: {} },
      refused,
    ],
    [
      'text',
      'anthropic',
      { type: 'content_block_delta', delta: { type: 'text_delta', text: 'refusal' } },
      passes,
    ],
    ['piece', 'responses', { type: 'response.refusal.delta', delta: 'I' }, refused],
    [
      'text',
      'responses',
      { type: 'response.output_text.delta', delta: 'response.refusal.delta' },
      passes,
    ],
    [
      'created',
      'responses',
      { type: 'response.created', response: response({}, { output: [] }) },
      passes,
    ],
    [
      'filtered',
      'responses',
      { type: 'response.incomplete', response: response({}, filtered) },
      refused,
    ],
    [
      'deeper',
      'responses',
      { type: 'x', response: { response: filtered, type: 'response.refusal.delta' } },
      passes,
    ],
  ])('in a stream: %s (%s)', (_, shape, event, expected) => {
    expect(judged(shape, event, all, true)).toBe(expected);
    expect(judged(shape, event, none, true)).toBe(passes);
  });

  test('reasons alone, without the words of the protocol', () => {
    const rules = { ...none, finishReasons: ['length'] };
    expect(judged('openai-chat', message({ content: 'x' }, 'length'), rules)).toBe(refused);
    expect(judged('openai-chat', message({ refusal: 'x' }, 'content_filter'), rules)).toBe(passes);
  });
});

describe('low confidence', () => {
  test.each<[string, boolean]>([
    ['1', true],
    ['true', true],
    ['0.4', true],
    ['yes', true],
    [' low ', true],
    ['x'.repeat(99), true],
    ['', false],
    ['0', false],
    ['false', false],
    ['False ', false],
    ['no', false],
    ['null', false],
  ])('a flag of %j', (value, isSet) => {
    const expected = isSet ? unsure : passes;
    expect(new ReplyJudge(all, 'openai-chat').ofHeader(value)).toBe(expected);
    for (const shape of ['openai-chat', 'anthropic', 'responses'] as const) {
      expect(judged(shape, { low: value })).toBe(expected);
      expect(judged(shape, { low: value }, all, true)).toBe(expected);
    }
  });

  test('a field is one of the outermost object', () => {
    expect(judged('openai-chat', { low: true, choices: [] })).toBe(unsure);
    expect(judged('openai-chat', { low: false, choices: [{ low: true }] })).toBe(passes);
    expect(judged('responses', { type: 'x', response: { low: true } }, all, true)).toBe(passes);
    expect(judged('openai-chat', { low: {} })).toBe(unsure);
    // A refusal says more.
    expect(judged('openai-chat', { low: true, ...message({ refusal: 'x' }) })).toBe(refused);
  });

  const logprobs = (...values: (number | null)[]) =>
    values.map((logprob) => ({ token: 'logprob', logprob, top_logprobs: [{ logprob: -99 }] }));
  test.each<[AnswerShape, (values: (number | null)[]) => unknown]>([
    ['openai-chat', (of) => message({}, 'stop', { logprobs: { content: logprobs(...of) } })],
    [
      'openai-completions',
      (token_logprobs) => ({ choices: [{ text: '', logprobs: { token_logprobs } }] }),
    ],
    ['responses', (of) => response({ type: 'output_text', text: '', logprobs: logprobs(...of) })],
  ])('logprobs of %s', (shape, answer) => {
    expect(judged(shape, answer([-1, -1]))).toBe(passes);
    expect(judged(shape, answer([-1, -1.01]))).toBe(unsure);
    expect(judged(shape, answer([null, -0.5]))).toBe(passes);
    expect(judged(shape, answer([]))).toBe(passes);
    // One that is as unlikely as can be is twenty of -1, not ten thousand.
    expect(judged(shape, answer([-9999, ...Array(30).fill(-0.1)]))).toBe(passes);
    expect(judged(shape, answer([-3]), none)).toBe(passes);
    // A token is no mean.
    expect(judged(shape, answer([-3]), all, true)).toBe(passes);
  });

  test('logprobs that are none', () => {
    for (const of of [
      null,
      [],
      7,
      { content: null },
      { content: [null, 'x'], token_logprobs: 3 },
    ]) {
      expect(judged('openai-chat', message({}, 'stop', { logprobs: of }))).toBe(passes);
    }
  });
});
