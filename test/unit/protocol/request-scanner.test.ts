/** The request scanner: facts, refusals, and work that stays linear on hostile bodies (T31, T32). */
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import { prefixDepths } from '../../../src/protocol/prefix-hash.ts';
import { createRequestFacts, type RequestFacts } from '../../../src/protocol/request-facts.ts';
import { scanRequest } from '../../../src/protocol/request-scanner.ts';

/** Scans inside a larger shared buffer whose other bytes would be valid JSON continuations. */
function scan(body: string | Uint8Array): { code: number; facts: RequestFacts } {
  const source = typeof body === 'string' ? Buffer.from(body) : body;
  const arena = new Uint8Array(new SharedArrayBuffer(source.length + 40)).fill(0x7d);
  arena.set(source, 7);
  const facts = createRequestFacts();
  const code = scanRequest(arena.subarray(7), source.length, facts);
  expect(Buffer.compare(Buffer.from(arena.subarray(7, 7 + source.length)), source)).toBe(0);
  return { code, facts };
}

const chat = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };

test('a chat request yields all its facts', () => {
  const { code, facts } = scan(
    JSON.stringify({
      ...chat,
      model: 'llama-3-8b',
      stream: true,
      max_tokens: 7,
      max_completion_tokens: 9,
      n: 3,
      best_of: 4,
      stream_options: { other: [1, { include_usage: false }], include_usage: true },
      session_id: 's-1',
      prompt_cache_key: 'k',
      user: 'u',
      tools: [],
    }),
  );
  expect(code).toBe(0);
  expect(facts).toMatchObject({
    model: 'llama-3-8b',
    stream: true,
    maxTokens: 9,
    n: 3,
    bestOf: 4,
    includeUsage: true,
    sessionKey: 's-1',
    prefixCount: 0,
    promptBytes: JSON.stringify(chat.messages).length,
    errorParam: '',
  });
});

test('a second scan leaves nothing of the first', () => {
  const facts = createRequestFacts();
  const first = Buffer.from(
    '{"model":"m","stream":true,"n":2,"max_tokens":5,"session_id":"x","prompt":"abc"}',
  );
  expect(scanRequest(first, first.length, facts)).toBe(0);
  const second = Buffer.from('{}');
  expect(scanRequest(second, second.length, facts)).toBe(0);
  expect(facts).toEqual({ ...createRequestFacts(), textBytes: second.length });
});

test.each([
  ['session_id wins over prompt_cache_key', '{"prompt_cache_key":"b","session_id":"a"}', 'a'],
  ['prompt_cache_key alone', '{"prompt_cache_key":"b"}', 'b'],
  ['an empty or null session_id does not count', '{"session_id":"","prompt_cache_key":"b"}', 'b'],
  ['null', '{"session_id":null}', ''],
  ['a number', '{"session_id":-12.5e3}', '-12.5e3'],
  ['escapes are decoded', '{"session_id":"\\u00e9\\n"}', 'é\n'],
  ['a lone surrogate is kept', '{"session_id":"\\ud800"}', '\ud800'],
])('session key: %s', (_name, body, expected) => {
  const { code, facts } = scan(body);
  expect([code, facts.sessionKey]).toEqual([0, expected]);
});

test('a long session key is cut, not refused', () => {
  const { code, facts } = scan(JSON.stringify({ session_id: 'é'.repeat(5000) }));
  expect(code).toBe(0);
  expect(facts.sessionKey.length).toBeLessThanOrEqual(1024);
  expect(facts.sessionKey).toContain('éé');
});

test.each([
  ['1', 1],
  ['16.9', 16],
  ['-1', 0],
  ['null', 0],
  ['1e400', 2 ** 31 - 1],
  ['9223372036854775807', 2 ** 31 - 1],
  ['2E1', 20],
])('max_tokens %s counts as %i', (text, expected) => {
  for (const key of ['max_tokens', 'max_completion_tokens', 'max_output_tokens']) {
    const { code, facts } = scan(`{"${key}":${text}}`);
    expect([code, facts.maxTokens]).toEqual([0, expected]);
  }
});

test('a key written with escapes is the same key', () => {
  expect(scan('{"mod\\u0065l":"a"}').facts.model).toBe('a');
  expect(scan('{"stream_options":{"include\\u005fusage":true}}').facts.includeUsage).toBe(true);
  const every = [...'max_completion_tokens'].map(
    (c) => `\\u00${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
  expect(scan(`{"${every.join('')}":5}`).facts.maxTokens).toBe(5);
});

const guarded = [
  ['model', '"a"'],
  ['stream', 'true'],
  ['max_tokens', '1'],
  ['max_completion_tokens', '1'],
  ['max_output_tokens', '1'],
  ['n', '1'],
  ['best_of', '1'],
  ['messages', '[]'],
  ['prompt', '"p"'],
  ['input', '"p"'],
  ['session_id', '"s"'],
  ['prompt_cache_key', '"s"'],
  ['user', '"u"'],
  ['stream_options', '{}'],
  ['tools', '[]'],
] as const;

describe.each(guarded)('the key %s', (key, value) => {
  const escaped = `\\u00${key.charCodeAt(0).toString(16)}${key.slice(1)}`;

  test('twice is refused, escaped or not, and named', () => {
    for (const second of [key, escaped]) {
      const { code, facts } = scan(`{"${key}":${value},"x":0,"${second}":${value}}`);
      expect([code, facts.errorParam]).toEqual([errors.DUPLICATE_KEY.number, key]);
    }
  });

  test('twice at another depth is not our concern', () => {
    expect(scan(`{"metadata":{"${key}":1,"${key}":2},"${key}":${value}}`).code).toBe(0);
  });

  test('with a wrong type is refused and named', () => {
    const wrong = ['{"a":1}', '[]', 'true', '3', '"text"'].find((candidate) => {
      if (key === 'prompt' || key === 'input') return candidate === 'true';
      return candidate[0] !== value[0] && !(key === 'session_id' && candidate === '3');
    });
    const isObjectKey = key === 'stream_options';
    const { code, facts } = scan(`{"${key}":${isObjectKey ? '[]' : wrong}}`);
    expect([code, facts.errorParam]).toEqual([errors.INVALID_PARAM.number, key]);
  });
});

test.each([
  ['"model" is null', '{"model":null}', 'model'],
  ['a name nobody has', `{"model":"${'x'.repeat(600)}"}`, 'model'],
  [
    'include_usage is no boolean',
    '{"stream_options":{"include_usage":1}}',
    'stream_options.include_usage',
  ],
])('wrong type: %s', (_name, body, param) => {
  const { code, facts } = scan(body);
  expect([code, facts.errorParam]).toEqual([errors.INVALID_PARAM.number, param]);
});

test.each([
  ['empty', ''],
  ['whitespace only', ' \n'],
  ['an array', '[]'],
  ['a string', '"x"'],
  ['a number', '1'],
  ['a byte order mark', '\ufeff{}'],
  ['trailing garbage', '{} x'],
  ['two objects', '{}{}'],
  ['cut in a key', '{"a'],
  ['cut after a key', '{"a"'],
  ['cut after the colon', '{"a":'],
  ['cut after the value', '{"a":1'],
  ['cut in an escape', '{"a":"\\'],
  ['cut in a unicode escape', '{"a":"\\u12'],
  ['a trailing comma', '{"a":1,}'],
  ['a leading comma', '{,"a":1}'],
  ['a trailing comma in an array', '{"a":[1,]}'],
  ['a missing colon', '{"a" 1}'],
  ['a bare key', '{a:1}'],
  ['single quotes', "{'a':1}"],
  ['mismatched brackets', '{"a":[1}]'],
  ['a leading zero', '{"a":01}'],
  ['a leading plus', '{"a":+1}'],
  ['a bare point', '{"a":1.}'],
  ['a bare minus', '{"a":-}'],
  ['an empty exponent', '{"a":1e}'],
  ['NaN', '{"a":NaN}'],
  ['a wrong literal', '{"a":tru}'],
  ['a raw line break in a string', '{"a":"x\ny"}'],
  ['a raw NUL in a long string', `{"a":"${'x'.repeat(100)}\0${'x'.repeat(100)}"}`],
  ['an unknown escape', '{"a":"\\x41"}'],
  ['a bad unicode escape', '{"a":"\\u00g0"}'],
  ['a comment', '{"a":1/*x*/}'],
  ['vertical tab as whitespace', '{\v}'],
])('malformed JSON is refused: %s', (_name, body) => {
  expect(() => JSON.parse(body) as unknown).toSatisfy((parse: () => unknown) => {
    try {
      const value = parse();
      return typeof value !== 'object' || Array.isArray(value);
    } catch {
      return true;
    }
  });
  expect(scan(body).code).toBe(errors.BAD_JSON.number);
});

test('invalid UTF-8 is refused, in and out of what is read', () => {
  const bad = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]);
  expect(scan(bad).code).toBe(errors.NOT_UTF8.number);
});

test('128 levels pass and 129 do not, in values and in stream_options', () => {
  const nested = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;
  expect(scan(`{"a":${nested(127)}}`).code).toBe(0);
  expect(scan(`{"a":${nested(128)}}`).code).toBe(errors.JSON_TOO_DEEP.number);
  expect(scan(`{"stream_options":{"a":${nested(126)}}}`).code).toBe(0);
  expect(scan(`{"stream_options":{"a":${nested(127)}}}`).code).toBe(errors.JSON_TOO_DEEP.number);
});

test('1,024 keys at the top and 250,000 in all pass, and not one more', () => {
  const keys = (count: number): string =>
    Array.from({ length: count }, (_, i) => `"k${i}":1`).join(',');
  expect(scan(`{${keys(1024)}}`).code).toBe(0);
  expect(scan(`{${keys(1025)}}`).code).toBe(errors.JSON_TOO_MANY_KEYS.number);
  expect(scan(`{"a":{${keys(249_999)}}}`).code).toBe(0);
  expect(scan(`{"a":{${keys(250_000)}}}`).code).toBe(errors.JSON_TOO_MANY_KEYS.number);
});

const plain = new Uint8Array(12e6).fill(0x61);

function bytePassMs(): number {
  const start = performance.now();
  let special = 0;
  for (let i = 0; i < plain.length; i++) if (plain[i]! < 0x20) special++;
  expect(special).toBe(0);
  return performance.now() - start;
}

describe('hostile bodies cost no more than a pass over their bytes (T31)', () => {
  const many = (count: number, item: (i: number) => string): string =>
    Array.from({ length: count }, (_, i) => item(i)).join(',');
  const cases: [string, () => string, number][] = [
    ['a million brackets', () => `{"a":${'['.repeat(1e6)}`, errors.JSON_TOO_DEEP.number],
    ['a million bare brackets', () => '['.repeat(1e6), errors.BAD_JSON.number],
    [
      'a million keys',
      () => `{${many(1e6, (i) => `"k${i}":1`)}}`,
      errors.JSON_TOO_MANY_KEYS.number,
    ],
    [
      'a million keys below the top',
      () => `{"a":{${many(1e6, (i) => `"k${i}":1`)}}}`,
      errors.JSON_TOO_MANY_KEYS.number,
    ],
    ['a 10 MB escaped string', () => `{"prompt":"${'\\n'.repeat(5e6)}"}`, 0],
    ['a 10 MB unicode-escaped string', () => `{"prompt":"${'\\u00e9'.repeat(1.7e6)}"}`, 0],
    ['a 10 MB unterminated string', () => `{"prompt":"${'x'.repeat(1e7)}`, errors.BAD_JSON.number],
    [
      'a hundred thousand messages',
      () => `{"messages":[${many(1e5, () => '{"role":"user","content":"hi"}')}]}`,
      0,
    ],
    ['five megabytes of whitespace', () => `{${' '.repeat(5e6)}}`, 0],
    ['a 5 MB number', () => `{"n":${'1'.repeat(5e6)}}`, 0],
    ['a 5 MB key', () => `{"${'\\u0061'.repeat(8e5)}":1}`, 0],
    ['__proto__ as a key', () => '{"__proto__":{"polluted":true},"model":"m"}', 0],
    ['a lone surrogate', () => '{"model":"\\udc00","prompt":"\\ud800"}', 0],
  ];

  test.each(cases)('%s', (_name, build, expected) => {
    const source = Buffer.from(build());
    const facts = createRequestFacts();
    const times: number[] = [];
    const passes: number[] = [];
    // The fastest of a few, beside a plain pass over 12 MB: the machine is shared.
    for (let i = 0; i < 5; i++) {
      passes.push(bytePassMs());
      const start = performance.now();
      expect(scanRequest(source, source.length, facts)).toBe(expected);
      times.push(performance.now() - start);
    }
    expect(Math.min(...times)).toBeLessThan(Math.max(50, 4 * Math.min(...passes)));
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

describe('values that a parser would change pass unread (T32)', () => {
  test.each([
    '{"model":"m","seed":9223372036854775807}',
    '{"model":"m","temperature":1e400}',
    '{"clé":"ключ 鍵","model":"m","\\ud83d\\ude00":"😀"}',
    ' {\t"model"\r\n:  "m" ,\n "x" : [ 1 ,  2 ] } \n',
  ])('%s', (body) => {
    const { code, facts } = scan(body);
    expect([code, facts.model]).toEqual([0, 'm']);
  });
});

describe('prefix hashes', () => {
  const prompt = (text: string, model = 'm'): RequestFacts =>
    scan(JSON.stringify({ model, prompt: text })).facts;
  const base = Array.from({ length: 140_000 }, (_, i) => 'abcdefghij klmnop'[(i * i) % 17]).join(
    '',
  );

  test('depths are reached by size, and no further than the last', () => {
    expect(prompt('x'.repeat(2045)).prefixCount).toBe(0);
    expect(prompt('x'.repeat(2046)).prefixCount).toBe(1);
    expect(prompt('x'.repeat(4096)).prefixCount).toBe(2);
    expect(prompt(base).prefixCount).toBe(prefixDepths.length);
  });

  test('where the prompt lies in the body does not matter', () => {
    const expected = prompt(base).prefixHashes;
    for (const model of ['mo', 'mod', 'mode', 'a-much-longer-model-name']) {
      expect(prompt(base, model).prefixHashes).toEqual(expected);
    }
  });

  test('a changed byte changes every depth from its block on and none before', () => {
    const expected = prompt(base);
    for (const [depth, blocks] of prefixDepths.entries()) {
      const at = blocks * 2048 - 40; // inside the last block of this depth
      const changed = prompt(`${base.slice(0, at)}#${base.slice(at + 1)}`);
      for (let i = 0; i < prefixDepths.length; i++) {
        const pair = (facts: RequestFacts): number[] => [
          ...facts.prefixHashes.subarray(2 * i, 2 * i + 2),
        ];
        if (i < depth) expect(pair(changed)).toEqual(pair(expected));
        else expect(pair(changed)).not.toEqual(pair(expected));
      }
    }
  });

  test('messages count before prompt and prompt before input, whatever the order', () => {
    const messages = JSON.stringify([{ role: 'user', content: base }]);
    const expected = scan(`{"messages":${messages}}`).facts;
    const all = scan(`{"input":"i","messages":${messages},"prompt":"p"}`).facts;
    expect(all.promptBytes).toBe(messages.length);
    expect(all.prefixHashes).toEqual(expected.prefixHashes);
    expect(scan('{"input":"iii","prompt":"p"}').facts.promptBytes).toBe(3);
  });

  test('ten thousand prompts that differ in one place do not collide in either half', () => {
    const low = new Set<number>();
    const high = new Set<number>();
    for (let i = 0; i < 10_000; i++) {
      const { prefixHashes } = prompt(`${'s'.repeat(1000)}${i}${'s'.repeat(1100)}`);
      low.add(prefixHashes[0]!);
      high.add(prefixHashes[1]!);
    }
    // Of 10,000 random 32-bit values, 0.01 pairs are expected to collide.
    expect(low.size).toBeGreaterThan(9_998);
    expect(high.size).toBeGreaterThan(9_998);
  });
});
