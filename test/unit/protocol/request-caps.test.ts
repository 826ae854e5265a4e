/** What a request may ask for: every way of asking for more is seen, and nothing else is refused. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import {
  capProblem,
  noCaps,
  type RequestCaps,
  refusedBits,
  restrictedKeys,
} from '../../../src/protocol/request-caps.ts';
import { createRequestFacts } from '../../../src/protocol/request-facts.ts';
import { scanRequest } from '../../../src/protocol/request-scanner.ts';
import type { AnswerShape } from '../../../src/protocol/routes.ts';

const facts = createRequestFacts();
const { PARAM_TOO_LARGE, PARAM_TOO_LONG, PARAM_NOT_ALLOWED, DUPLICATE_KEY, INVALID_PARAM } = errors;

/** The error, its param and its sentence; '' when the request passes. */
function judge(members: string, caps: Partial<RequestCaps>, n = 0, shape: AnswerShape = 'whole') {
  const body = Buffer.from(`{"model":"m","messages":[],${members}}`);
  const scanned = scanRequest(body, body.length, facts);
  const code = scanned === 0 ? capProblem(body, facts, { ...noCaps, ...caps }, n, shape) : scanned;
  return code === 0 ? '' : { code, param: facts.errorParam, message: facts.errorMessage };
}

describe('numbers', () => {
  const cases: [members: string, caps: Partial<RequestCaps>, param: string][] = [
    ['"n":5', { n: 4 }, 'n'],
    ['"n":4.0e1', { n: 39 }, 'n'],
    ['"n":1e400', { n: 128 }, 'n'],
    ['"n":2,"best_of":5', { n: 4 }, 'best_of'],
    ['"max_tokens":11', { maxTokens: 10 }, 'max_tokens'],
    ['"max_tokens":1,"max_completion_tokens":11', { maxTokens: 10 }, 'max_completion_tokens'],
    ['"max_output_tokens":11', { maxTokens: 10 }, 'max_output_tokens'],
    ['"logprobs":true,"top_logprobs":6', { logprobs: 5 }, 'top_logprobs'],
    ['"logprobs":6', { logprobs: 5 }, 'logprobs'],
    ['"prompt_logprobs":-1', { logprobs: 5 }, 'prompt_logprobs'],
    ['"\\u006e":5', { n: 4 }, 'n'],
    ['"n":1,"n_cmpl":5', { n: 4 }, 'n_cmpl'],
    ['"max_tokens":1,"n_predict":11', { maxTokens: 10 }, 'n_predict'],
    ['"logprobs":1,"n_probs":6', { logprobs: 5 }, 'n_probs'],
  ];
  test.each(cases)('%s is refused by %o', (members, caps, param) => {
    expect(judge(members, caps)).toMatchObject({ code: PARAM_TOO_LARGE.number, param });
    expect(judge(members, {})).toBe('');
  });

  test('what is at the cap passes', () => {
    const caps = { n: 4, maxTokens: 10, logprobs: 5, stop: 2, prompts: 1 };
    expect(judge('"n":4,"best_of":4,"max_tokens":10,"top_logprobs":5,"stop":["a","b"]', caps)).toBe(
      '',
    );
    expect(judge('"n":null,"logprobs":false,"stop":null,"max_tokens":null', caps)).toBe('');
  });

  test('the sentence is that of OpenAI', () => {
    expect(judge('"n":200', { n: 128 })).toMatchObject({
      message:
        "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 200 instead.",
    });
  });

  test('the smaller of two caps on n counts, and 0 is none', () => {
    expect(judge('"n":3', { n: 4 }, 2)).not.toBe('');
    expect(judge('"n":3', { n: 2 }, 4)).not.toBe('');
    expect(judge('"n":3', { n: 0 }, 2)).not.toBe('');
    expect(judge('"n":3', { n: 4 }, 0)).toBe('');
    expect(judge('"n":3', { n: 0 }, 0)).toBe('');
  });

  test('a number as a text gets past no cap', () => {
    expect(judge('"logprobs":"9"', {})).toMatchObject({ code: INVALID_PARAM.number });
  });
});

test('lists', () => {
  const tooLong = (param: string) => ({ code: PARAM_TOO_LONG.number, param });
  expect(judge('"stop":["a","b,","c"]', { stop: 2 })).toMatchObject(tooLong('stop'));
  expect(judge('"stop_sequences":["a","b","c"]', { stop: 2 })).toMatchObject(
    tooLong('stop_sequences'),
  );
  expect(judge('"stop":"a,b,c"', { stop: 1 })).toBe('');
  expect(judge('"prompt":["a","b"]', { prompts: 1 })).toMatchObject(tooLong('prompt'));
  for (const list of ['["a","b"]', '[[1],[2]]', '[{"text":"a","image":"b"},{"text":"c"}]']) {
    expect(judge(`"input":${list}`, { prompts: 1 })).toMatchObject(tooLong('input'));
    expect(judge(`"input":${list}`, { prompts: 2 })).toBe('');
    // One conversation, however many items it has.
    expect(judge(`"input":${list}`, { prompts: 1 }, 0, 'responses')).toBe('');
  }
  expect(judge('"input":[1,2,3]', { prompts: 1 })).toBe('');
});

test('a list of prompts does not multiply what a tenant may ask for', () => {
  const list = (count: number): string => `"prompt":[${Array(count).fill('"a"').join(',')}]`;
  const asked = (members: string, n: number) => judge(members, { n: 128 }, n, 'openai-completions');
  expect(asked(list(20_000), 1)).toEqual({
    code: PARAM_TOO_LONG.number,
    param: 'prompt',
    message:
      "Invalid 'prompt': its 20000 prompts ask for 20000 completions together ('n' or 'best_of' for each). " +
      'Expected at most 1.',
  });
  expect(asked(`${list(3)},"n":2`, 6)).toBe('');
  expect(asked(`${list(4)},"n":2`, 6)).toMatchObject({ param: 'prompt' });
  expect(asked(`${list(3)},"n":1,"best_of":3`, 6)).toMatchObject({ param: 'prompt' });
  expect(asked('"prompt":[[1],[2]]', 1)).toMatchObject({ param: 'prompt' });
  expect(asked('"prompt":[1,2]', 1)).toBe('');
  expect(asked('"prompt":["a"]', 1)).toBe('');
  // The cap of all is one on n; without one of its own a tenant has `requests.max_prompts`.
  expect(asked(`${list(200)},"n":2`, 0)).toBe('');
  // Of embeddings one text is one vector, not a sequence that is generated.
  expect(judge('"input":["a","b"]', {}, 1)).toBe('');
  expect(judge('"documents":["a","b"]', {}, 1)).toBe('');
});

describe('keys of engines', () => {
  const refused = refusedBits([]);
  test.each(restrictedKeys)('%s is refused unless it is allowed or null', (key) => {
    const expected = { code: PARAM_NOT_ALLOWED.number, param: key };
    for (const value of ['{"b":0}', '{"a":[1]}']) {
      expect(judge(`"${key}":${value}`, { refused })).toMatchObject(expected);
      expect(judge(`"${key}":${value}`, { refused: refusedBits([key]) })).toBe('');
    }
    const escaped = `\\u00${key.charCodeAt(0).toString(16)}${key.slice(1)}`;
    expect(judge(`"${escaped}":{"b":0}`, { refused })).toMatchObject(expected);
    expect(judge(`"${key}":null`, { refused })).toBe('');
    expect(judge(`"${key}":null,"${key}":{}`, { refused })).toMatchObject({
      code: DUPLICATE_KEY.number,
      param: key,
    });
  });

  test.each(restrictedKeys)('%s is allowed where it asks for nothing', (key) => {
    const isObject = key === 'chat_template_kwargs';
    const values = isObject ? ['{ }', 'null'] : ['{ }', '[]', '""', 'false', 'null'];
    for (const value of values) {
      // That of llama.cpp without an adapter turns off what the server has on.
      const isAsking = key === 'lora' && value !== 'null';
      const verdict = judge(`"${key}":${value}`, { refused });
      if (isAsking) expect(verdict).toMatchObject({ param: key });
      else expect(verdict).toBe('');
    }
  });

  test.each([
    ['id_slot', '-1', '0'],
    ['priority', '0', '-1'],
    ['data_parallel_rank', 'null', '0'],
    ['bootstrap_room', 'null', '-1'],
    ['cache_salt', '""', '" "'],
    ['chat_template', 'false', 'true'],
  ])('%s: %s asks for nothing, %s does', (key, nothing, something) => {
    expect(judge(`"${key}":${nothing}`, { refused })).toBe('');
    const expected = { code: PARAM_NOT_ALLOWED.number, param: key };
    expect(judge(`"${key}":${something}`, { refused })).toMatchObject(expected);
  });

  test('a template among the arguments of the template is a template', () => {
    const allowed = { refused: refusedBits(['chat_template_kwargs']) };
    expect(judge('"chat_template_kwargs":{"enable_thinking":false}', allowed)).toBe('');
    const expected = { code: PARAM_NOT_ALLOWED.number, param: 'chat_template' };
    for (const key of ['chat_template', 'tokenize', 'chat\\u005ftemplate']) {
      const members = `"chat_template_kwargs":{"a":{},"${key}":"{{ 1 }}"}`;
      expect(judge(members, allowed)).toMatchObject(expected);
    }
    expect(judge('"chat_template_kwargs":{"a":{"chat_template":1}}', allowed)).toBe('');
    expect(judge('"chat_template_kwargs":[]', allowed)).toMatchObject({
      code: INVALID_PARAM.number,
      param: 'chat_template_kwargs',
    });
  });

  test('only keys at the top count', () => {
    expect(judge('"tools":[{"priority":1,"chat_template":"x","n":9}]', { refused, n: 1 })).toBe('');
  });
});
