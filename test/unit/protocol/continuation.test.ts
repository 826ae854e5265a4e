import { describe, expect, test } from 'vitest';
import {
  type ContinuationMode,
  type ContinuationPlan,
  planContinuation,
  tokensLeft,
} from '../../../src/protocol/continuation.ts';
import {
  completionBody,
  completionPath,
  continuedBody,
  observedBody,
} from '../../../src/protocol/continued-body.ts';
import type { AnswerShape } from '../../../src/protocol/routes.ts';

const messages = '"messages": [{"role":"user","content":"h\\"i ]}"} ]';

function planOf(
  body: string,
  shape: AnswerShape = 'openai-chat',
  mode: ContinuationMode = 'text',
): ContinuationPlan {
  const plan = planContinuation(Buffer.from(body), shape, mode);
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
  const body = `{"max_tokens":9,"min_tokens": 2 ,${messages},"max_completion_tokens":9}`;
  const value = JSON.parse(continued(body, 'x', 5));
  expect(value).toMatchObject({ max_tokens: 4, min_tokens: 0, max_completion_tokens: 4 });
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
  ['n_predict', '9'],
  ['n_probs', '2'],
  ['n_cmpl', '2'],
  ['input_ids', '[1]'],
  ['stop', '"a"'],
  ['stop', '["a"]'],
  ['presence_penalty', '0.5'],
  ['frequency_penalty', '-1'],
  ['repetition_penalty', '1.1'],
  ['n', '2'],
  ['best_of', '2'],
  ['suffix', '"s"'],
  ['bad_words', '["a b"]'],
  ['stop_regex', '"a+"'],
  ['no_repeat_ngram_size', '3'],
  ['dry_multiplier', '0.8'],
  ['dry_base', '1.75'],
  ['dry_sequence_breakers', '["a"]'],
  ['mirostat', '2'],
  ['logits_processors', '["m.f"]'],
  ['custom_logit_processor', '"f"'],
  ['vllm_xargs', '{"a":1}'],
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

test('what may be generated in all must be known, and the same to every engine', () => {
  const completion = (more: string) =>
    planContinuation(Buffer.from(`{"prompt":"x"${more}}`), 'openai-completions');
  expect(completion('')).toBe('max_tokens');
  expect(completion(',"max_tokens":null')).toBeTypeOf('object');
  expect(refusal('"max_tokens":5,"max_completion_tokens":6')).toBe('max_tokens');
  expect(refusal('"max_tokens":null,"max_completion_tokens":6')).toBeTypeOf('object');
});

describe('behind token ids', () => {
  const ids = Buffer.from('[1,2,30]');
  const asked = {
    stream_options: { include_usage: true, continuous_usage_stats: true },
    return_token_ids: true,
  };
  const completion = (body: string, tokens = 3, shape: AnswerShape = 'openai-chat') => {
    const plan = planOf(body, shape, 'token_ids');
    const text = completionBody(Buffer.from(body), plan, ids, tokens).toString();
    expect(text.match(/"max_tokens"/g), text).toHaveLength(1);
    return JSON.parse(text);
  };
  const planned = (body: string, shape: AnswerShape = 'openai-chat') =>
    planContinuation(Buffer.from(body), shape, 'token_ids');

  test('a chat goes on as a completion of all ids so far', () => {
    const body = `{"model":"m", ${messages} ,"stream":true,"temperature":0,"logprobs":false}`;
    expect(completion(body)).toEqual({
      ...{ model: 'm', prompt: [1, 2, 30], stream: true, temperature: 0, logprobs: null },
      ...{ ...asked, max_tokens: null },
    });
    expect(completionPath('/x/v1/chat/completions')).toBe('/x/v1/completions');
    expect(completionPath('/chat/completions/v1/chat/completions?a=/chat/completions')).toBe(
      '/chat/completions/v1/completions?a=/chat/completions',
    );
    expect(completionPath('/v1/completions')).toBe('/v1/completions');
  });

  test.each([
    ['"max_tokens":20', 17, undefined],
    ['"max_completion_tokens":20', 17, 17],
    ['"max_tokens":20,"max_completion_tokens":20', 17, 17],
    ['"max_tokens":null,"max_completion_tokens":20', 17, 17],
    ['"max_tokens":2', 0, undefined],
    ['"max_tokens":null', null, undefined],
  ])('%s', (limits, tokens, ofChat) => {
    const value = completion(`{${limits},${messages},"min_tokens":4}`);
    expect([value.max_tokens, value.max_completion_tokens, value.min_tokens]).toEqual([
      ...[tokens, ofChat, 1],
    ]);
  });

  test('a completion goes on behind its prompt, a text or ids', () => {
    for (const prompt of ['"a, b]"', '[ 5, 6 ]']) {
      const body = `{"max_tokens":9,"prompt" : ${prompt},"return_token_ids":null}`;
      expect(completion(body, 3, 'openai-completions')).toEqual({
        ...{ prompt: [1, 2, 30], max_tokens: 6, ...asked },
      });
    }
  });

  test('the ids are asked for, once', () => {
    for (const more of ['', ',"return_token_ids":false', ',"return_token_ids":true']) {
      const body = `{${messages}${more}}`;
      const plan = planOf(body, 'openai-chat', 'token_ids');
      expect(plan.wantsIds).toBe(more.endsWith('true'));
      const text = observedBody(Buffer.from(body), plan).toString();
      expect(JSON.parse(text)).toMatchObject(asked);
      expect(text.match(/return_token_ids/g)).toHaveLength(1);
    }
  });

  test.each([
    ['several prompts', '{"max_tokens":9,"prompt":["a"]}', 'openai-completions', 'prompt'],
    ['several lists', '{"max_tokens":9,"prompt":[[1]]}', 'openai-completions', 'prompt'],
    ['no prompt', '{"max_tokens":9,"prompt":[]}', 'openai-completions', 'prompt'],
    ['a chat with a prompt', `{${messages},"prompt":"x"}`, 'openai-chat', 'prompt'],
    ['a stop string', `{${messages},"stop":"x"}`, 'openai-chat', 'stop'],
    [
      'an image',
      '{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:"}}]}]}',
      ...(['openai-chat', 'messages'] as const),
    ],
    ['a part of no type', '{"messages":[{"content":[{"text":"x"}]}]}', 'openai-chat', 'messages'],
    ['a part that is none', '{"messages":[{"content":["x"]}]}', 'openai-chat', 'messages'],
    ['a message that is none', '{"messages":[7]}', 'openai-chat', 'messages'],
  ] as const)('%s refuses', (_, body, shape, key) => {
    expect(planned(body, shape)).toBe(key);
  });

  test('parts of text are text', () => {
    const part = '{"text":"x","type":"text"}';
    const body = `{"messages":[{"role":"user","content":[${part},${part}]},{"content":null}]}`;
    expect(planned(body)).toBeTypeOf('object');
  });
});
