/** What of a body is media in base64 and no text. */
import { expect, test } from 'vitest';
import { mediaBytes } from '../../../src/protocol/media-bytes.ts';

const bytesOf = (text: string): number => {
  const body = new Uint8Array(new SharedArrayBuffer(Buffer.byteLength(text) + 9)).fill(0x7d);
  body.set(Buffer.from(text));
  return mediaBytes(body, Buffer.byteLength(text));
};
const base64 = 'QUJD'.repeat(300);

test('a data: URL, also one with escapes', () => {
  expect(bytesOf(`{"url":"data:image/png;base64,${base64}","text":"a long text"}`)).toBe(
    `:image/png;base64,${base64}`.length,
  );
  expect(bytesOf(`{"url":"data:image\\/png;base64,${base64}"}`)).toBeGreaterThan(base64.length);
});

test('a text under the key data, with spaces or without', () => {
  expect(bytesOf(`{"input_audio":{"data":"${base64}","format":"wav"}}`)).toBe(base64.length);
  expect(bytesOf(`{"source":{"data" : "${base64}"}}`)).toBe(base64.length);
});

test('several are all counted', () => {
  expect(bytesOf(JSON.stringify([{ data: base64 }, { data: base64 }, { url: 'data:,a' }]))).toBe(
    2 * base64.length + ':,a'.length,
  );
});

test('text that only speaks of it is text', () => {
  for (const value of ['see "data:x" and "data":"y"', 'data', 'the data:', '\\"data:']) {
    expect(bytesOf(JSON.stringify({ content: value })), value).toBe(0);
  }
  expect(bytesOf('{"data":[1,2],"a":{"data":{"b":"c"}},"dataset":"d"}')).toBe(0);
  expect(bytesOf('{"a":"data')).toBe(0);
});

test('words are no media, whatever they begin with', () => {
  const words = 'many words that a tokenizer counts '.repeat(20);
  expect(bytesOf(JSON.stringify({ content: `data: ${words}` }))).toBe(0);
  expect(bytesOf(JSON.stringify({ content: `data:${words.replaceAll(' ', '\n')}` }))).toBe(0);
  expect(bytesOf(JSON.stringify({ data: words }))).toBe(0);
});
