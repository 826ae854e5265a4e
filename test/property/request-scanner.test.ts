/** The request scanner against JSON.parse: generated bodies, mutated bodies, random bytes. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { keyNames } from '../../src/protocol/known-keys.ts';
import { createRequestFacts } from '../../src/protocol/request-facts.ts';
import { scanRequest } from '../../src/protocol/request-scanner.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);

const facts = createRequestFacts();
const scan = (bytes: Uint8Array): number => scanRequest(bytes, bytes.length, facts);
const fatal = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What JSON.parse says: the top-level object, or undefined. */
function parse(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(fatal.decode(bytes));
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Codes that refuse what JSON.parse accepts; all documented in the scanner's header. */
const stricter = new Set([
  errors.DUPLICATE_KEY.number,
  errors.INVALID_PARAM.number,
  errors.JSON_TOO_DEEP.number,
  errors.JSON_TOO_MANY_KEYS.number,
  errors.UNKNOWN_PARAM.number,
]);

function agrees(bytes: Uint8Array): void {
  const code = scan(bytes);
  const parsed = parse(bytes);
  if (parsed === undefined) {
    expect(code, Buffer.from(bytes).toString('latin1')).not.toBe(0);
    return;
  }
  if (code !== 0) {
    expect(stricter.has(code), Buffer.from(bytes).toString('latin1')).toBe(true);
    return;
  }
  expect(facts.model).toBe(parsed.model ?? '');
  expect(facts.stream).toBe(parsed.stream ?? false);
  const counts = [parsed.max_tokens, parsed.max_completion_tokens, parsed.max_output_tokens];
  const tokens = counts.map((count) => Math.max(0, Math.floor(Number(count ?? 0))));
  expect(facts.maxTokens).toBe(Math.min(2 ** 31 - 1, Math.max(...tokens)));
  const options = parsed.stream_options as { include_usage?: boolean | null } | null | undefined;
  expect(facts.includeUsage).toBe(options?.include_usage ?? false);
}

const known = fc.record(
  {
    model: fc.string({ unit: 'binary', maxLength: 40 }),
    stream: fc.constantFrom(true, false, null),
    max_tokens: fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.integer()),
    max_completion_tokens: fc.integer(),
    stream_options: fc.constantFrom(null, {}, { include_usage: true }, { include_usage: null }),
    messages: fc.array(fc.record({ role: fc.string(), content: fc.string({ unit: 'binary' }) })),
  },
  { requiredKeys: [] },
);

test('any object JSON.stringify writes is accepted with the same facts', () => {
  const body = fc.tuple(known, fc.dictionary(fc.string(), fc.jsonValue()), fc.integer({ max: 3 }));
  fc.assert(
    fc.property(body, ([keys, others, indent]) => {
      const merged = { ...others, ...keys };
      const guarded = ['n', 'best_of', 'prompt', 'input', 'session_id', 'user', 'tools'];
      for (const key of Object.keys(merged)) {
        // Values of keys that mean something, and look-alikes of them, are judged.
        const means = guarded.includes(key) || (!(key in keys) && isOurs(key));
        if (means) delete (merged as Record<string, unknown>)[key];
      }
      const bytes = Buffer.from(JSON.stringify(merged, null, indent));
      expect(scan(bytes)).toBe(0);
      agrees(bytes);
    }),
    { seed, numRuns: 1500 },
  );
});

/** A key that the scanner reads, in whichever letters. */
const isOurs = (key: string): boolean =>
  (keyNames as readonly string[]).includes(key.replaceAll('\u017f', 's').toLowerCase());

const alphabet = '{}[]",:\\/ \n\t0123456789.-+eEtrufalsn\0\x1f\x7f\u00e9';
const seeds = [
  '{"model":"m","messages":[{"role":"user","content":"a \\"b\\" \\u00e9 c"}],"stream":true}',
  '{"a":[1,-2.5e+3,0.1,true,false,null,{}],"max_tokens":12,"model":"x\\n"}',
  `{"prompt":"${'long text without an end '.repeat(8)}\\n\\t${'and more '.repeat(9)}","n":1}`,
  '{"stream_options":{"include_usage":true,"x":[[[]]]},"model":"m"}',
  ' { "model" : "é鍵😀" , "stream" : false } ',
];

function mutate(text: string, random: Prng): Uint8Array {
  const bytes = [...Buffer.from(text)];
  for (let edits = 1 + random.below(3); edits > 0; edits--) {
    const at = random.below(bytes.length + 1);
    const fresh = random.below(4) === 0 ? random.below(256) : pick(random);
    const kind = random.below(4);
    if (kind === 0) bytes.splice(at, 1);
    else if (kind === 1) bytes.splice(at, 0, fresh);
    else if (kind === 2) bytes[Math.min(at, bytes.length - 1)] = fresh;
    else bytes.splice(at, random.below(12));
    if (bytes.length === 0) break;
  }
  return Uint8Array.from(bytes);
}

const pick = (random: Prng): number => alphabet.charCodeAt(random.below(alphabet.length)) & 0xff;

test('mutated bodies are accepted exactly when JSON.parse accepts them', () => {
  const random = createPrng(seed);
  let accepted = 0;
  const rounds = 20_000;
  for (let i = 0; i < rounds; i++) {
    const bytes = mutate(seeds[random.below(seeds.length)]!, random);
    agrees(bytes);
    if (parse(bytes) !== undefined) accepted++;
  }
  // Both outcomes were exercised.
  expect(accepted).toBeGreaterThan(rounds / 50);
  expect(accepted).toBeLessThan(rounds / 2);
});

test('random JSON-like and random bytes never crash and agree with JSON.parse', () => {
  const random = createPrng(seed ^ 0x5a5a5a5a);
  for (let i = 0; i < 20_000; i++) {
    const bytes = new Uint8Array(1 + random.below(60));
    const raw = random.below(8) === 0;
    for (let k = 0; k < bytes.length; k++) bytes[k] = raw ? random.below(256) : pick(random);
    if (!raw) bytes[0] = 0x7b;
    agrees(bytes);
  }
});

test('a body cut at any byte is refused', () => {
  for (const text of seeds) {
    const bytes = Buffer.from(text.trim());
    for (let end = 0; end < bytes.length; end++) {
      expect(scan(bytes.subarray(0, end))).not.toBe(0);
    }
    expect(scan(bytes)).toBe(0);
  }
});

test('a special byte at any alignment of a long string is found', () => {
  for (const special of ['"', '\\', '\n', '\0', '\x1f']) {
    for (let at = 0; at < 70; at++) {
      for (let shift = 0; shift < 8; shift++) {
        const text = `{"${'k'.repeat(shift)}":"${'é'.repeat(at)}${special}${'a!#['.repeat(20)}"}`;
        agrees(Buffer.from(text));
        agrees(Buffer.from(text.replace(special, ' ')));
      }
    }
  }
});
