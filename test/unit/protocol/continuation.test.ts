import { describe, expect, test } from 'vitest';
import {
  type ContinuationPlan,
  continuedBody,
  observedBody,
  planContinuation,
  tokensLeft,
} from '../../../src/protocol/continuation.ts';
import type { AnswerShape } from '../../../src/protocol/routes.ts';

const messages = '"messages": [{"role":"user","content":"h\\"i ]}"} ]';

function planOf(body: string, shape: AnswerShape = 'openai-chat'): ContinuationPlan {
  const plan = planContinuation(Buffer.from(body), shape);
  if (typeof plan === 'string') throw new Error(`refused: ${plan}`);
  return plan;
}

function continued(body: string, text: string, tokens = 3, shape: AnswerShape = 'openai-chat') {
  const inside = Buffer.from(text);
  return continuedBody(Buffer.from(body), planOf(body, shape), inside, tokens).toString();
}

const refusal = (members: string, shape: AnswerShape = 'openai-chat') =>
  planContinuation(Buffer.from(`{${messages},"prompt":"p",${members}}`), shape);

test('the delivered text is a last assistant message that is to be continued', () => {
  const body = `{"model":"m", ${messages} ,"stream":true}`;
  expect(continued(body, 'é\\n漢\\u00e9🙂 \\"x\\"')).toBe(
    `{"model":"m", "messages": [{"role":"user","content":"h\\"i ]}"} ,{"role":"assistant","content":"é\\n漢\\u00e9🙂 \\"x\\""}] ,"stream":true,"continue_final_message":true,"add_generation_prompt":false,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`,
  );
  expect(JSON.parse(continued(body, 'é\\n漢\\u00e9🙂 \\"x\\"')).messages[1].content).toBe(
    'é\n漢é🙂 "x"',
  );
});

test('a completion goes on behind its prompt', () => {
  const body = '{"prompt" : "a\\\\" , "max_tokens" : 20}';
  expect(continued(body, ' b\\n', 3, 'openai-completions')).toBe(
    '{"prompt" : "a\\\\ b\\n" , "max_tokens" : 17,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}',
  );
});

test('limits are reduced by what was delivered and end at 0', () => {
  const body = `{"max_tokens":20,"min_tokens": 2 ,${messages},"max_completion_tokens":9}`;
  const value = JSON.parse(continued(body, 'x', 5));
  expect(value).toMatchObject({ max_tokens: 15, min_tokens: 0, max_completion_tokens: 4 });
  expect(tokensLeft(planOf(body), 5)).toBe(4);
  expect(tokensLeft(planOf(body), 9)).toBe(0);
  const unlimited = planOf(`{${messages},"max_tokens":null}`);
  expect(tokensLeft(unlimited, 5)).toBe(Number.POSITIVE_INFINITY);
});

test('without a delivered text the request is asked as it was', () => {
  const body = `{${messages},"max_tokens":20}`;
  expect(JSON.parse(continued(body, '', 0))).toEqual({
    ...JSON.parse(body),
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
});

describe('the usage of every chunk is asked for', () => {
  const asked = { include_usage: true, continuous_usage_stats: true };
  test.each([
    ['', asked, false, false],
    [',"stream_options":null', asked, false, false],
    [',"stream_options":{}', asked, false, false],
    [',"stream_options": {"include_usage":false}', asked, false, false],
    [',"stream_options":{"include_usage": true}', asked, true, false],
    [',"stream_options":{"x":[1,{}],"include_usage":true}', { ...asked, x: [1, {}] }, true, false],
    [',"stream_options":{"continuous_usage_stats":true,"include_usage":true}', asked, true, true],
    [',"stream_options":{"continuous_usage_stats":true}', asked, false, false],
  ])('%s', (member, options, wantsUsage, wantsContinuousUsage) => {
    const body = `{${messages}${member},"seed":9223372036854775807}`;
    const plan = planOf(body);
    expect(plan).toMatchObject({ wantsUsage, wantsContinuousUsage });
    const text = observedBody(Buffer.from(body), plan).toString();
    expect(JSON.parse(text).stream_options).toEqual(options);
    expect(JSON.parse(continued(body, 'x')).stream_options).toEqual(options);
    expect(text).toContain('"seed":9223372036854775807');
  });
});

test.each([
  ['tools', '[{"type":"function"}]'],
  ['functions', '[{}]'],
  ['function_call', '"auto"'],
  ['response_format', '{"type":"json_object"}'],
  ['guided_json', '{"type":"object"}'],
  ['guided_choice', '["a"]'],
  ['structured_outputs', '{"regex":"a"}'],
  ['logprobs', 'true'],
  ['logprobs', '0'],
  ['top_logprobs', '2'],
  ['echo', 'true'],
  ['prompt_embeds', '"QUJD"'],
  ['stop', '"a"'],
  ['stop', '["a"]'],
  ['presence_penalty', '0.5'],
  ['frequency_penalty', '-1'],
  ['repetition_penalty', '1.1'],
  ['n', '2'],
  ['best_of', '2'],
  ['suffix', '"s"'],
  ['return_token_ids', 'true'],
  ['continue_final_message', 'true'],
  ['add_generation_prompt', 'false'],
  ['max_tokens', '1.5'],
  ['max_tokens', '"7"'],
  ['st\\u006fp', '["a"]'],
])('%s %s refuses', (key, value) => {
  expect(refusal(`"${key}":${value}`)).toBe(key);
});

test.each([
  ['tools', '[ ]'],
  ['stop', 'null'],
  ['stop', '[]'],
  ['logprobs', 'false'],
  ['presence_penalty', '0.0'],
  ['repetition_penalty', '1.0'],
  ['frequency_penalty', 'null'],
  ['n', '1'],
  ['response_format', '{ "type" : "text" }'],
  ['temperature', '0.7'],
  ['seed', '7'],
  ['logit_bias', '{"5":1}'],
])('%s %s says nothing', (key, value) => {
  expect(refusal(`"${key}":${value}`)).toBeTypeOf('object');
});

test('what has no text to go on behind is refused', () => {
  expect(planContinuation(Buffer.from('{"messages":[ ]}'), 'openai-chat')).toBe('messages');
  expect(planContinuation(Buffer.from('{"prompt":"x"}'), 'openai-chat')).toBe('messages');
  expect(planContinuation(Buffer.from('{"prompt":["x"]}'), 'openai-completions')).toBe('prompt');
  expect(planContinuation(Buffer.from('{"prompt":[1,2]}'), 'openai-completions')).toBe('prompt');
  expect(refusal('"min_tokens":1,"min_tokens":2')).toBe('min_tokens');
});
