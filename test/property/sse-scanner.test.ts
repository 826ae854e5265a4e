/** The SSE scanner and the observer on random streams in random pieces, against a reference parser. */
import { createParser } from 'eventsource-parser';
import { expect, test } from 'vitest';
import { createPrng } from '../../src/lib/prng.ts';
import { CompletionObserver, Observed } from '../../src/protocol/completion-observer.ts';
import { SseScanner } from '../../src/protocol/sse-scanner.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);

const pieces = [
  'data: ',
  'data:',
  'data',
  ': c',
  'event: x',
  'id: 1',
  '\n',
  '\n',
  '\n\n',
  '\r\n',
  '\r\n\r\n',
  '\r',
  'é鍵😀',
  '{"choices":[{"delta":{"content":"a"}}]}',
  '[DONE]',
  ' ',
  'x',
];

test('any stream in any pieces: same payloads as the reference, same bytes as the input', () => {
  const random = createPrng(seed);
  let events = 0;
  for (let round = 0; round < 6000; round++) {
    let text = random.below(10) === 0 ? '\ufeff' : '';
    for (let i = random.below(30); i >= 0; i--) text += pieces[random.below(pieces.length)];
    const bytes = Buffer.from(text);
    const expected: string[] = [];
    const parser = createParser({ onEvent: (event) => expected.push(event.data) });
    parser.feed(text);
    // The reference keeps a CR at the very end back: more could follow. Ours reports at once.
    if (text.endsWith('\r')) parser.feed('x');
    const payloads: string[] = [];
    let raw = '';
    const scanner = new SseScanner((event) => {
      raw += Buffer.from(event.bytes.subarray(event.start, event.end)).toString('latin1');
      if (event.dataLines === 0) return;
      payloads.push(Buffer.from(event.data.subarray(event.dataStart, event.dataEnd)).toString());
    });
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + random.below(random.below(2) === 0 ? 3 : 40);
      // A chunk of its own memory, overwritten afterwards: nothing may be kept by reference.
      const chunk = Uint8Array.from(bytes.subarray(at, at + size));
      expect(scanner.push(chunk)).toBe(0);
      chunk.fill(0x21);
      at += size;
    }
    raw += Buffer.from(scanner.pending()).toString('latin1');
    expect(payloads, JSON.stringify(text)).toEqual(expected);
    expect(raw).toBe(bytes.toString('latin1'));
    events += payloads.length;
  }
  expect(events).toBeGreaterThan(1000);
});

test('the observer calls a payload malformed exactly when JSON.parse finds no object', () => {
  const random = createPrng(seed ^ 0x77777777);
  const observer = new CompletionObserver();
  const base =
    '{"id":"c","object":"x","choices":[{"index":0,"delta":{"role":"a","content":"t"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":2}},"error":null}';
  const alphabet = '{}[]",:\\x0 en';
  let good = 0;
  for (let round = 0; round < 30_000; round++) {
    const at = random.below(base.length);
    const cut = random.below(3);
    const fresh = random.below(2) === 0 ? '' : alphabet[random.below(alphabet.length)];
    const text = base.slice(0, at) + fresh + base.slice(at + cut);
    let isObject = false;
    try {
      const value: unknown = JSON.parse(text);
      isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    } catch {
      isObject = false;
    }
    observer.reset('openai-chat', 1);
    const bytes = Buffer.from(text);
    const flags = observer.onPayload(bytes, 0, bytes.length);
    expect((flags & Observed.malformed) === 0, text).toBe(isObject);
    if (isObject) good++;
    else expect(observer.complete || observer.sawToken).toBe(false);
  }
  expect(good).toBeGreaterThan(3000);
});
