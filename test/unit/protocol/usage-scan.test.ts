/** Usage of an answer that passes: found where it is a member of the outermost object, else unknown. */
import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { CompletionObserver } from '../../../src/protocol/completion-observer.ts';
import { UsageScan } from '../../../src/protocol/usage-scan.ts';

const observer = new CompletionObserver();
const usage = {
  prompt_tokens: 11,
  completion_tokens: 4,
  prompt_tokens_details: { cached_tokens: 3 },
};
const counted = { prompt: 11, completion: 4, cached: 3 };
const long = 'x'.repeat(100_000);

/** What is read of `text`, pushed in parts of `partBytes`. */
function read(text: string, partBytes = 65_536) {
  const scan = new UsageScan();
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += partBytes) {
    scan.push(bytes.subarray(at, at + partBytes));
  }
  return scan.read(observer, 'openai-chat');
}

test.each([
  ['last', { data: long, usage }],
  ['before short members', { data: long, usage, service_tier: null, system_fingerprint: 'f' }],
  [
    'before a text that looks like it',
    { data: long, usage, note: ',"usage":{"prompt_tokens":9}}' },
  ],
  ['behind one that is nested', { data: [long, { usage: { prompt_tokens: 9 } }], usage }],
  ['before all else', { usage, data: long }],
  ['before a long list', { id: 'x', usage, prompt_logprobs: Array(20_000).fill({ '1': -0.5 }) }],
  ['between texts with quotes', { a: '\\"{[usage":{'.repeat(99), usage, b: '"}]\\'.repeat(99) }],
  ['behind another', { us: 1, usag: {}, usages: { prompt_tokens: 9 }, '\\usage': {}, usage }],
  ['before one that is nested', { data: long, usage, more: { usage: { prompt_tokens: 9 } } }],
])('usage that comes %s is read', (_name, value) => {
  for (const text of [JSON.stringify(value), `${JSON.stringify(value, null, 2)}\r\n`]) {
    for (const partBytes of [1, 7, 1000, 2048, 65_536, 10_000_000]) {
      expect(read(text, partBytes), `parts of ${partBytes}`).toEqual(counted);
    }
  }
});

test.each([
  ['nested in the last member', JSON.stringify({ data: long, more: { usage } })],
  ['in an array', JSON.stringify([long, { usage }])],
  ['a text', JSON.stringify({ data: `${long},"usage":${JSON.stringify(usage)}}` })],
  ['a text alone', JSON.stringify(`${long},"usage":${JSON.stringify(usage)}}`)],
  ['far too long', JSON.stringify({ usage: { ...usage, more: long } })],
  ['cut', JSON.stringify({ data: long, usage }).slice(0, -2)],
  ['no object', JSON.stringify({ data: long, usage: [1, 2] })],
  ['not there', JSON.stringify({ data: long })],
])('usage that is %s stays unknown', (_name, text) => {
  for (const partBytes of [7, 65_536]) {
    expect(read(text, partBytes)?.prompt ?? -1, `parts of ${partBytes}`).toBe(-1);
  }
});

test('of two the last counts, and one that is no object takes nothing away', () => {
  const first = JSON.stringify({ prompt_tokens: 1, completion_tokens: 1 });
  const text = `{"usage":${first},"data":"${long}","usage":${JSON.stringify(usage)},"usage":null}`;
  for (const partBytes of [3, 65_536]) expect(read(text, partBytes)).toEqual(counted);
});

test('what JSON.parse finds is found, whatever the answer holds and however it is cut', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
  console.info(`SEED=${seed}`);
  const random = createPrng(seed);
  const texts = ['usage', '"', '\\', '{', '}', '[', ']', ',', ':', 'é', 'x'.repeat(40), '\n'];
  const text = (): string => {
    return Array.from({ length: random.below(8) }, () => texts[random.below(texts.length)]).join(
      '',
    );
  };
  const value = (depth: number): unknown => {
    const kind = random.below(depth > 3 ? 3 : 6);
    if (kind === 0) return text();
    if (kind === 1) return random.below(1000) - 500.25;
    if (kind === 2) return [null, true, false][random.below(3)];
    if (kind === 3) return Array.from({ length: random.below(5) }, () => value(depth + 1));
    return Object.fromEntries(
      Array.from({ length: random.below(5) }, () => [text(), value(depth + 1)]),
    );
  };
  for (let round = 0; round < 2000; round++) {
    const members: [string, unknown][] = Array.from({ length: random.below(6) }, () => {
      const key = text();
      return [key === 'usage' ? 'x' : key, value(0)];
    });
    const hasUsage = random.below(2) === 0;
    if (hasUsage) members.splice(random.below(members.length + 1), 0, ['usage', usage]);
    const indent = random.below(2) === 0 ? undefined : 1;
    const answer = JSON.stringify(Object.fromEntries(members), null, indent);
    const partBytes = 1 + random.below(60);
    expect(read(answer, partBytes), answer).toEqual(hasUsage ? counted : undefined);
  }
});

test('an empty answer has none', () => {
  expect(read('')).toBeUndefined();
});
