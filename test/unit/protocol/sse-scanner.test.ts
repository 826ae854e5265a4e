/** The SSE scanner: splits at every byte (T11), legal and illegal shapes (T12), bounds (T13). */
import { createParser } from 'eventsource-parser';
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import { type SseEvent, SseScanner } from '../../../src/protocol/sse-scanner.ts';

interface Seen {
  raw: string;
  data: string | undefined;
  type: string;
  terminated: boolean;
}

function collect(chunks: readonly Uint8Array[], eventBytesMax?: number) {
  const events: Seen[] = [];
  const text = (bytes: Uint8Array, start: number, end: number): string =>
    Buffer.from(bytes.subarray(start, end)).toString('latin1');
  const scanner = new SseScanner((event: SseEvent) => {
    events.push({
      raw: text(event.bytes, event.start, event.end),
      data:
        event.dataLines === 0
          ? undefined
          : Buffer.from(event.data.subarray(event.dataStart, event.dataEnd)).toString(),
      type: text(event.bytes, event.typeStart, event.typeEnd),
      terminated: event.terminated,
    });
  }, eventBytesMax);
  let code = 0;
  for (const chunk of chunks) code ||= scanner.push(chunk);
  const pending = Buffer.from(scanner.pending()).toString('latin1');
  return { events, code, pending, scanner };
}

const payloads = (events: readonly Seen[]): string[] =>
  events.flatMap((event) => (event.data === undefined || !event.terminated ? [] : [event.data]));

const stream = [
  'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
  ': ping\n\n',
  'data: {"choices":[{"delta":{"content":"Grüße, 世界 😀"}}]}\n\n',
  'event: message_delta\r\ndata: {"x":1}\r\n\r\n',
  'id: 7\rdata:no space\rdata: second line\r\r',
  'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
  'data: [DONE]\n\n',
].join('');

describe('a stream split anywhere is the same stream (T11)', () => {
  for (const [name, text] of [
    ['mixed line ends', stream],
    ['CRLF', stream.replaceAll(/\r\n|\r|\n/g, '\r\n')],
    ['CR', stream.replaceAll(/\r\n|\r|\n/g, '\r')],
    ['LF', stream.replaceAll(/\r\n|\r|\n/g, '\n')],
    ['LF after a BOM', `\ufeff${stream.replaceAll(/\r\n|\r|\n/g, '\n')}`],
  ] as const) {
    const bytes = Buffer.from(text);
    const whole = collect([bytes]);

    const check = (chunks: readonly Uint8Array[]): void => {
      const seen = collect(chunks);
      expect(seen.code).toBe(0);
      expect(payloads(seen.events)).toEqual(payloads(whole.events));
      const raw = seen.events.map((event) => event.raw).join('') + seen.pending;
      expect(raw).toBe(bytes.toString('latin1'));
    };

    test(`${name}: the payloads are those of a reference parser`, () => {
      const expected: string[] = [];
      const parser = createParser({ onEvent: (event) => expected.push(event.data) });
      parser.feed(text);
      expect(payloads(whole.events)).toEqual(expected);
      expect(expected).toHaveLength(6);
    });

    test(`${name}: two pieces, at every byte`, () => {
      for (let at = 0; at <= bytes.length; at++) check([bytes.subarray(0, at), bytes.subarray(at)]);
    });

    test(`${name}: three pieces, at every pair of bytes near a line end`, () => {
      for (let at = 0; at < bytes.length; at++) {
        for (let gap = 1; gap < 4; gap++) {
          check([bytes.subarray(0, at), bytes.subarray(at, at + gap), bytes.subarray(at + gap)]);
        }
      }
    });

    test(`${name}: byte by byte`, () => {
      check(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)));
    });
  }
});

describe('shapes of events (T12)', () => {
  // [name, stream, payloads of terminated events, bytes left pending]
  const table: [string, string, string[], string][] = [
    ['LF', 'data: a\n\n', ['a'], ''],
    ['CRLF', 'data: a\r\n\r\n', ['a'], ''],
    ['CR', 'data: a\r\r', ['a'], ''],
    ['LF then CR', 'data: a\n\r', ['a'], ''],
    ['CR then LF is one line end', 'data: a\r\ndata: b\n\n', ['a\nb'], ''],
    ['CRLF then LF', 'data: a\r\n\n', ['a'], ''],
    ['no space', 'data:a\n\n', ['a'], ''],
    ['two spaces keep one', 'data:  a\n\n', [' a'], ''],
    ['a tab is content', 'data:\ta\n\n', ['\ta'], ''],
    ['empty data', 'data:\n\n', [''], ''],
    ['data without a colon', 'data\n\n', [''], ''],
    ['two empty data lines', 'data\ndata\n\n', ['\n'], ''],
    ['multi-line data', 'data: a\ndata: b\ndata: c\n\n', ['a\nb\nc'], ''],
    ['multi-line data around a comment', 'data: a\n: x\ndata: b\n\n', ['a\nb'], ''],
    ['BOM', '\ufeffdata: a\n\n', ['a'], ''],
    ['BOM, then blank', '\ufeff\ndata: a\n\n', ['a'], ''],
    ['a second BOM is part of the name', '\ufeff\ufeffdata: a\n\n', [], ''],
    ['a BOM later is part of the name', 'data: a\n\n\ufeffdata: b\n\n', ['a'], ''],
    ['comment', ': ping\n\n', [], ''],
    ['empty comment', ':\n\n', [], ''],
    ['comment before data', ': ping\ndata: a\n\n', ['a'], ''],
    ['unknown field', 'foo: bar\ndata: a\n\n', ['a'], ''],
    ['a field that begins like data', 'database: x\n\n', [], ''],
    ['a field in capitals', 'DATA: x\n\n', [], ''],
    ['a space before the colon', 'data : x\n\n', [], ''],
    ['a space before the name', ' data: x\n\n', [], ''],
    ['id and retry', 'id: 1\nretry: 5\ndata: a\n\n', ['a'], ''],
    ['event without data', 'event: ping\n\n', [], ''],
    ['event after data', 'data: a\nevent: x\n\n', ['a'], ''],
    ['blank lines alone', '\n\n\r\n\r', [], ''],
    ['blank lines between', 'data: a\n\n\n\ndata: b\n\n', ['a', 'b'], ''],
    ['NUL in data', 'data: a\0b\n\n', ['a\0b'], ''],
    ['colon in data', 'data: a: b:c\n\n', ['a: b:c'], ''],
    ['JSON garbage is data', 'data: {"a":\n\n', ['{"a":'], ''],
    ['several in one chunk', 'data: a\n\ndata: b\n\ndata: c\n\n', ['a', 'b', 'c'], ''],
    ['cut before the blank line', 'data: a\n\ndata: b\n', ['a'], 'data: b\n'],
    ['cut inside a line', 'data: a\n\ndata: {"x', ['a'], 'data: {"x'],
    ['cut inside the first line', 'da', [], 'da'],
    ['[DONE] without its blank line', 'data: [DONE]\n', [], 'data: [DONE]\n'],
    ['nothing', '', [], ''],
  ];

  test.each(table)('%s', (_name, text, expected, pending) => {
    const bytes = Buffer.from(text);
    for (const chunks of [[bytes], Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))]) {
      const seen = collect(chunks);
      expect([seen.code, payloads(seen.events), seen.pending]).toEqual([0, expected, pending]);
      const reference: string[] = [];
      const parser = createParser({ onEvent: (event) => reference.push(event.data) });
      parser.feed(text);
      if (!text.startsWith('\ufeff\ufeff')) expect(payloads(seen.events)).toEqual(reference);
    }
  });

  test('the event type is reported where it lies', () => {
    const { events } = collect([Buffer.from('event: error\ndata: {}\n\nevent:a\nevent:b\n\n')]);
    expect(events.map((event) => event.type)).toEqual(['error', 'b']);
  });

  test('an event inside one chunk is reported in place', () => {
    const chunk = Buffer.from('data: a\n\ndata: b\n\n');
    const scanner = new SseScanner((event) => {
      expect(event.bytes).toBe(chunk);
      expect(event.data).toBe(chunk);
    });
    expect(scanner.push(chunk)).toBe(0);
    expect.assertions(5);
  });

  test('finish reports what is pending, marked as not terminated', () => {
    const { events, scanner } = collect([
      Buffer.from('data: a\n\ndata: [DO'),
      Buffer.from('NE]\n'),
    ]);
    scanner.finish();
    expect(events.at(-1)).toMatchObject({ data: '[DONE]', terminated: false });
    expect(scanner.pending()).toHaveLength(0);
    scanner.finish();
    expect(events).toHaveLength(2);
  });
});

describe('an event is bounded (T13)', () => {
  const cap = 64 * 1024;

  test('an event of exactly the cap passes and one more byte does not', () => {
    for (const pieces of [1, 3, 1000]) {
      for (const [size, expected] of [
        [cap, 0],
        [cap + 1, errors.EVENT_TOO_LARGE.number],
      ] as const) {
        const bytes = Buffer.from(`data: ${'x'.repeat(size - 8)}\n\n`);
        const step = Math.ceil(size / pieces);
        const chunks = Array.from({ length: pieces }, (_, i) =>
          bytes.subarray(i * step, (i + 1) * step),
        );
        expect(collect(chunks, cap).code).toBe(expected);
      }
    }
  });

  test('a 20 MB event ends with an error and flat memory', () => {
    const chunk = Buffer.alloc(64 * 1024, 'x');
    const scanner = new SseScanner(() => expect.unreachable('no event is complete'));
    expect(scanner.push(Buffer.from('data: '))).toBe(0);
    const before = process.memoryUsage().arrayBuffers;
    let refusedAt = -1;
    for (let i = 0; i < 320; i++) {
      const code = scanner.push(chunk);
      if (code !== 0 && refusedAt < 0) refusedAt = i;
      expect(scanner.pending().length).toBeLessThanOrEqual(1024 * 1024);
    }
    expect(refusedAt).toBe(15); // 16 chunks and the field name are over 1 MiB
    expect(scanner.pending()).toHaveLength(0);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
    expect(scanner.push(Buffer.from('data: a\n\n'))).toBe(errors.EVENT_TOO_LARGE.number);
  });

  test.each([
    ['CR only', Buffer.alloc(1 << 20, '\r')],
    ['LF only', Buffer.alloc(1 << 20, '\n')],
    ['CR lines in an LF-less stream', Buffer.from('a\r'.repeat(1 << 19))],
    ['LF lines with one CR at the end', Buffer.from(`${'a\n'.repeat(1 << 19)}\r`)],
  ])('hostile line ends cost no more than a pass: %s', (_name, bytes) => {
    let events = 0;
    const scanner = new SseScanner(() => events++, 4 << 20);
    const start = performance.now();
    scanner.push(bytes);
    // Quadratic work would take minutes.
    expect(performance.now() - start).toBeLessThan(2000);
    expect(events + scanner.pending().length).toBeGreaterThan(0);
  });

  test('a long event in tiny pieces costs linear work', () => {
    const scanner = new SseScanner(() => undefined);
    const piece = Buffer.from('x');
    const start = performance.now();
    for (let i = 0; i < 500_000; i++) scanner.push(piece);
    expect(scanner.pending()).toHaveLength(500_000);
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
