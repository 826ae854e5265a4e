/** Usage from the end of an answer: found where it is a member of the outermost object, else unknown. */
import { expect, test } from 'vitest';
import { CompletionObserver } from '../../../src/protocol/completion-observer.ts';
import { UsageTail } from '../../../src/protocol/usage-tail.ts';

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
  const tail = new UsageTail();
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += partBytes) {
    tail.push(bytes.subarray(at, at + partBytes));
  }
  return tail.read(observer, 'openai-chat');
}

test.each([
  ['last', { data: long, usage }],
  ['before short members', { data: long, usage, service_tier: null, system_fingerprint: 'f' }],
  [
    'before a text that looks like it',
    { data: long, usage, note: ',"usage":{"prompt_tokens":9}}' },
  ],
  ['behind one that is nested', { data: [long, { usage: { prompt_tokens: 9 } }], usage }],
  ['before one that is nested', { data: long, usage, more: { usage: { prompt_tokens: 9 } } }],
])('usage that comes %s is read', (_name, value) => {
  for (const text of [JSON.stringify(value), `${JSON.stringify(value, null, 2)}\r\n`]) {
    for (const partBytes of [7, 1000, 2048, 65_536]) {
      expect(read(text, partBytes), `parts of ${partBytes}`).toEqual(counted);
    }
  }
});

test.each([
  ['nested in the last member', JSON.stringify({ data: long, more: { usage } })],
  ['in an array', JSON.stringify([long, { usage }])],
  ['a text', JSON.stringify({ data: `${long},"usage":${JSON.stringify(usage)}}` })],
  ['a text alone', JSON.stringify(`${long},"usage":${JSON.stringify(usage)}}`)],
  ['further back than the tail', JSON.stringify({ usage, data: long })],
  ['cut', JSON.stringify({ data: long, usage }).slice(0, -1)],
  ['no object', JSON.stringify({ data: long, usage: [1, 2] })],
  ['not there', JSON.stringify({ data: long })],
])('usage that is %s stays unknown', (_name, text) => {
  for (const partBytes of [7, 65_536]) {
    expect(read(text, partBytes)?.prompt ?? -1, `parts of ${partBytes}`).toBe(-1);
  }
});

test('an empty answer has none', () => {
  expect(read('')).toBeUndefined();
});
