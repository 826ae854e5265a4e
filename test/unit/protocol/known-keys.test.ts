/** The keys that are known, in whatever letters, and what the values of some measure. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import { createRequestFacts, type RequestFacts } from '../../../src/protocol/request-facts.ts';
import { scanRequest } from '../../../src/protocol/request-scanner.ts';

function scan(text: string): { code: number; facts: RequestFacts } {
  const body = Buffer.from(text);
  const facts = createRequestFacts();
  return { code: scanRequest(body, body.length, facts), facts };
}

const chat = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };

describe('a known key in other letters', () => {
  test.each([
    ['{"model":"a","Model":"b"}', 'Model', 'model'],
    ['{"MODEL":"b"}', 'MODEL', 'model'],
    ['{"model":"a","mo\\u0044el":"b"}', 'moDel', 'model'],
    ['{"Lora_Path":"a"}', 'Lora_Path', 'lora_path'],
    ['{"Max_Tokens":9}', 'Max_Tokens', 'max_tokens'],
    ['{"Max_Completion_Tokens":9}', 'Max_Completion_Tokens', 'max_completion_tokens'],
    // What Go takes for s and k.
    ['{"\u017ftream":true}', '\u017ftream', 'stream'],
    ['{"max_to\u212aens":9}', 'max_to\u212aens', 'max_tokens'],
    ['{"\\u017Ftream":true}', '\u017ftream', 'stream'],
  ])('%s is refused', (body, param, name) => {
    const { code, facts } = scan(body);
    expect([code, facts.errorParam]).toEqual([errors.UNKNOWN_PARAM.number, param]);
    expect(facts.errorMessage).toBe(`Unknown parameter: '${param}'. Did you mean '${name}'?`);
  });

  test.each([
    '{"topK":5,"Models":1,"mode_":1,"MODE":1,"N_":2}',
    '{"metadata":{"Model":"b"},"model":"a"}',
    // Letters whose bytes differ in the same bit are no capitals.
    '{"max\u007ftokens":1,"MAX\u007fTOKENS":1,"mo\u00e9el":1,"ſtreams":1}',
  ])('%s passes', (body) => {
    expect(scan(body).code).toBe(0);
  });
});

describe('what a prompt is measured by', () => {
  const bytesOf = (body: object): [text: number, media: boolean] => {
    const { code, facts } = scan(JSON.stringify(body));
    expect(code).toBe(0);
    return [facts.textBytes, facts.readsMore];
  };
  const size = (...values: unknown[]): number =>
    values.reduce((sum: number, value) => sum + JSON.stringify(value).length, 0);

  test('all that the model reads, and none of the settings', () => {
    const tools = [{ name: 'f', input_schema: { properties: { url: { type: 'string' } } } }];
    const system = 'Be brief.';
    const body = { ...chat, system, tools, max_tokens: 5, metadata: { a: 'x'.repeat(500) } };
    expect(bytesOf(body)).toEqual([size(chat.messages, system, tools), false]);
    const response = { model: 'm', input: 'hi', instructions: 'long ones', stream: true };
    expect(bytesOf(response)).toEqual([size('hi', 'long ones'), false]);
    expect(bytesOf({ model: 'm', input: null, prompt: 'p' })).toEqual([3, false]);
  });

  test.each([
    [{ query: 'q', documents: ['a', 'b'] }],
    [{ text_1: 'a', text_2: ['b'] }],
    [{ queries: ['a'], items: ['b'] }],
    [{ data_1: 'a', data_2: ['b'] }],
  ])('rerank and score: %o', (texts: object) => {
    expect(bytesOf({ model: 'm', ...texts })).toEqual([size(...Object.values(texts)), false]);
  });

  test('the whole body where it has none of them', () => {
    const body = { model: 'm', tokens: [1, 2, 3] };
    expect(bytesOf(body)).toEqual([size(body), false]);
  });

  test('media is no text', () => {
    const url = `data:image/png;base64,${'A'.repeat(5000)}`;
    const content = [{ type: 'image_url', image_url: { url } }];
    const body = { model: 'm', messages: [{ role: 'user', content }] };
    const [text, readsMore] = bytesOf(body);
    expect(text).toBeLessThan(120);
    expect(readsMore).toBe(true);
    for (const source of ['http://x/', 'data:;base64,AA']) {
      expect(bytesOf({ model: 'm', input: [{ image_url: source }] })[1]).toBe(true);
      expect(bytesOf({ model: 'm', messages: [{ source: { url: source } }] })[1]).toBe(true);
    }
  });
});

test.each([
  { previous_response_id: 'resp_1', input: 'hi' },
  { prompt: { id: 'pmpt_1' }, input: 'hi' },
  { prompt: 'hi', prompt_embeds: 'AAAA' },
  { messages: [], input_ids: [1, 2] },
])('%o is not all that the model reads', (more) => {
  const { facts } = scan(JSON.stringify({ model: 'm', ...more }));
  expect(facts.readsMore).toBe(true);
  expect(scan('{"model":"m","previous_response_id":null,"input_ids":null}').facts.readsMore).toBe(
    false,
  );
});

test('a response is made in the background where that is asked for', () => {
  const of = (value: string): boolean =>
    scan(`{"model":"m","input":"hi","background":${value}}`).facts.isBackground;
  expect(['true', 'false', 'null'].map(of)).toEqual([true, false, false]);
  expect(scan('{"model":"m","input":"hi"}').facts.isBackground).toBe(false);
});

test('a stored prompt is an object, and the input beside it says more', () => {
  const { code, facts } = scan('{"model":"m","input":"abc","prompt":{"id":"pmpt_1"}}');
  expect([code, facts.promptBytes, facts.prompts]).toEqual([0, 5, 1]);
  expect(scan('{"model":"m","prompt":{"prompt_string":"a"}}').facts.promptBytes).toBe(21);
  const empty = scan('{"model":"m","input":null,"prompt":null}');
  expect([empty.code, empty.facts.promptBytes]).toEqual([0, 0]);
});
