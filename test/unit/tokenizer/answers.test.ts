/** From request bodies to counts and answers: what each API calls the same chat counts the same. */
import { afterAll, describe, expect, test } from 'vitest';
import type { AnswerShape } from '../../../src/protocol/routes.ts';
import type { TokenAnswer, TokenWant } from '../../../src/shm/token-tasks.ts';
import { answerTask } from '../../../src/tokenizer/answers.ts';
import {
  loadTokenizer,
  referenceOf,
  removeTokenizers,
  tokenizerFolder,
} from '../../support/tokenizers.ts';

afterAll(removeTokenizers);
const template =
  "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}" +
  '{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.city }}{% endfor %}{% endif %}' +
  "{{ '<|im_end|>\\n' }}{% endfor %}{% if enable_thinking %}{{ 'think' }}{% endif %}";
const tokenizer = loadTokenizer({ file: tokenizerFolder('yi', template), chatTemplate: '' });
const bare = loadTokenizer({ file: tokenizerFolder('yi', ''), chatTemplate: '' });

function ask(
  want: TokenWant,
  shape: AnswerShape,
  body: object,
  room = 1e9,
  by = tokenizer,
): TokenAnswer {
  const place = { model: 0, start: 0, length: 0, maxContext: 4096 };
  const task = { want, shape, room, ...place, deadlineMs: Number.POSITIVE_INFINITY };
  return answerTask(by, task, JSON.stringify(body));
}

const count = (shape: AnswerShape, body: object): number => {
  const answer = ask('count', shape, body);
  if (answer.kind !== 'count') throw new Error(`no count: ${JSON.stringify(answer)}`);
  return answer.tokens;
};
const answered = (answer: TokenAnswer): unknown =>
  answer.kind === 'body' ? JSON.parse(Buffer.from(answer.body).toString()) : answer;
const uncountable = { kind: 'none', reason: 'uncountable' };
const parameters = { type: 'object', properties: { city: { type: 'string' } } };

describe('chats', () => {
  const open = {
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [{ type: 'text', text: 'Weather?' }] },
      {
        role: 'assistant',
        content: '',
        tool_calls: [
          { id: 'c', type: 'function', function: { name: 'look', arguments: '{"city":"Ulm"}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'c', content: 'rain' },
    ],
    tools: [{ type: 'function', function: { name: 'look', description: 'd', parameters } }],
  };

  test('the same one counts the same in all three APIs', () => {
    const tokens = count('openai-chat', open);
    expect(tokens).toBeGreaterThan(40);
    const anthropic = {
      system: [{ type: 'text', text: 'Be brief.' }],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'Weather?' }] },
        {
          role: 'assistant',
          content: [{ type: 'tool_use', id: 'c', name: 'look', input: { city: 'Ulm' } }],
        },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'c', content: 'rain' }] },
      ],
      tools: [{ name: 'look', description: 'd', input_schema: parameters }],
    };
    expect(count('anthropic', anthropic)).toBe(tokens);
    expect(answered(ask('count_tokens', 'whole', anthropic))).toEqual({ input_tokens: tokens });
    const responses = {
      instructions: 'Be brief.',
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Weather?' }] },
        { type: 'function_call', name: 'look', arguments: '{"city":"Ulm"}' },
        { type: 'function_call_output', call_id: 'c', output: 'rain' },
      ],
      tools: [{ type: 'function', name: 'look', description: 'd', parameters }],
    };
    expect(count('responses', responses)).toBe(tokens);
  });

  test('arguments of the template reach it', () => {
    const more = { ...open, chat_template_kwargs: { enable_thinking: true } };
    expect(count('openai-chat', more)).toBeGreaterThan(count('openai-chat', open));
  });

  test('media leave nothing behind', () => {
    const url = `data:image/png;base64,${'A'.repeat(5000)}`;
    const image = { type: 'image_url', image_url: { url } };
    const say = (content: unknown) => ({ messages: [{ role: 'user', content }] });
    const seen = count('openai-chat', say([{ type: 'text', text: 'What is it?' }, image]));
    expect(seen).toBe(count('openai-chat', say('What is it?')));
  });

  test.each([
    ['no template', bare, 'openai-chat', open],
    ['a template of its own', tokenizer, 'openai-chat', { ...open, chat_template: '{{ 1 }}' }],
    ['a message to go on', tokenizer, 'openai-chat', { ...open, continue_final_message: true }],
    ['a stored conversation', tokenizer, 'responses', { input: 'a', previous_response_id: 'r' }],
    ['an item nobody knows', tokenizer, 'responses', { input: [{ type: 'reasoning' }] }],
    ['no messages', tokenizer, 'anthropic', {}],
  ] as const)('%s is not counted', (_, by, shape, body) => {
    expect(ask('count', shape, body, 1e9, by)).toEqual(uncountable);
  });

  test('a template that refuses the chat is no count', () => {
    const refusing = "{{ raise_exception('roles must alternate') }}";
    const folder = tokenizerFolder('yi', refusing);
    const by = loadTokenizer({ file: folder, chatTemplate: '' });
    expect(ask('count', 'openai-chat', open, 1e9, by)).toEqual(uncountable);
  });
});

describe('completions', () => {
  const [first, second] = referenceOf('yi').cases.filter(({ ids }) => ids.length > 10);
  test('the longest prompt of a list counts', () => {
    const prompt = [first?.text, second?.text];
    const most = Math.max(first?.ids.length ?? 0, second?.ids.length ?? 0);
    expect(count('openai-completions', { prompt })).toBe(most);
    expect(count('openai-completions', { prompt: first?.text })).toBe(first?.ids.length);
  });

  test('ids are as many as they are', () => {
    expect(count('openai-completions', { prompt: [1, 2, 3] })).toBe(3);
    expect(count('openai-completions', { prompt: [[1], [1, 2]] })).toBe(2);
    expect(ask('count', 'openai-completions', { prompt: null })).toEqual(uncountable);
  });
});

describe('/tokenize', () => {
  const { text, ids } = referenceOf('yi').cases.find(({ ids }) => ids.length > 20) ?? {
    ...{ text: '', ids: [] },
  };

  test('a prompt, as vLLM answers it', () => {
    const answer = { count: ids.length, max_model_len: 4096, tokens: ids, token_strs: null };
    expect(answered(ask('tokenize', 'whole', { prompt: text }))).toEqual(answer);
  });

  test('the texts of its tokens', () => {
    const body = { prompt: 'Hi there', return_token_strs: true };
    expect(answered(ask('tokenize', 'whole', body))).toMatchObject({
      token_strs: ['Hi', '▁there'],
    });
  });

  test('a chat', () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const tokens = count('openai-chat', { messages });
    expect(answered(ask('tokenize', 'whole', { messages }))).toMatchObject({ count: tokens });
  });

  test('neither, or more than an answer of ours may hold', () => {
    expect(ask('tokenize', 'whole', {})).toEqual(uncountable);
    expect(ask('tokenize', 'whole', { prompt: 'a'.repeat(262_145) })).toEqual(uncountable);
  });
});
