import { describe, expect, test } from 'vitest';
import { Exchange } from '../../../src/load/exchange.ts';
import { Outcome } from '../../../src/load/outcome.ts';

const sse = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n';
const json = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n';

/** Feeds the segments at times 1000, 2000, ... and judges. */
function exchange(
  segments: readonly string[],
  { stream = true, tokens = -1, id = 'run-1' } = {},
): { outcome: Outcome; gaps: number[]; seen: Exchange } {
  const gaps: number[] = [];
  const seen = new Exchange({ stream, tokens }, (gapUs) => gaps.push(gapUs));
  seen.begin(id, 0, 0, true);
  segments.forEach((segment, index) => {
    const bytes = Buffer.from(segment);
    seen.receive(bytes, bytes.length, (index + 1) * 1000);
  });
  return { outcome: seen.verdict(), gaps, seen };
}

function chunked(body: string): string {
  return `${Buffer.byteLength(body).toString(16)}\r\n${body}\r\n`;
}

function streamOf(...events: readonly string[]): string {
  const body = events.map((event) => `data: ${event}\n\n`).join('');
  return `${sse}transfer-encoding: chunked\r\n\r\n${chunked(body)}0\r\n\r\n`;
}

function sized(headLines: string, body: string): string {
  return `${headLines}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

const role = '{"choices":[{"delta":{"role":"assistant","content":""}}]}';
const token = '{"choices":[{"delta":{"content":"é"}}]}';
const usage = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}';

describe('a stream', () => {
  test('is the same split at every byte: tokens, usage, verdict', () => {
    const wire = Buffer.from(streamOf(role, token, token, token, usage, '[DONE]'));
    for (let cut = 1; cut < wire.length; cut++) {
      const seen = new Exchange({ stream: true, tokens: 3 }, () => {});
      seen.begin('run-1', 0, 0, true);
      seen.receive(wire.subarray(0, cut), cut, 1000);
      seen.receive(wire.subarray(cut), wire.length - cut, 2000);
      expect(seen.verdict(), `cut at ${cut}`).toBe(Outcome.ok);
      expect(seen.answer.tokenEvents).toBe(3);
      expect(seen.answer.events).toBe(6);
      expect(seen.answer.promptTokens).toBe(7);
    }
  });

  test('counts the first token at its read and each gap after it', () => {
    const first = `${sse}transfer-encoding: chunked\r\n\r\n${chunked(`data: ${role}\n\n`)}`;
    const one = chunked(`data: ${token}\n\n`);
    const two = chunked(`data: ${token}\r\n\r\ndata: ${token}\r\n\r\n`);
    const { outcome, gaps, seen } = exchange([
      first,
      one,
      two,
      `${chunked('data: [DONE]\n\n')}0\r\n\r\n`,
    ]);
    expect(outcome).toBe(Outcome.ok);
    expect(seen.firstTokenUs).toBe(2000);
    expect(seen.lastTokenUs).toBe(3000);
    expect(gaps).toEqual([1000, 0]);
  });

  test.each([
    ['without its end mark is truncated', [streamOf(role, token)], Outcome.truncated],
    [
      'cut in the middle is truncated',
      [streamOf(token, '[DONE]').slice(0, -20)],
      Outcome.truncated,
    ],
    [
      'with an error event is an error',
      [streamOf(token, '{"error":{"code":502}}')],
      Outcome.errorBody,
    ],
    [
      'with garbage for an event is malformed',
      [streamOf('{"choices":', '[DONE]')],
      Outcome.malformed,
    ],
    ['answered as plain JSON is a mismatch', [sized(json, '{"choices":[]}')], Outcome.mismatch],
    [
      'with a wrong chunk is malformed',
      [streamOf(token).replace('\r\n0\r\n', 'x')],
      Outcome.malformed,
    ],
  ])('%s', (_name, wire, outcome) => {
    expect(exchange(wire).outcome).toBe(outcome);
  });

  test('with fewer tokens than asked for is a mismatch', () => {
    const wire = [streamOf(token, token, '[DONE]')];
    expect(exchange(wire, { tokens: 2 }).outcome).toBe(Outcome.ok);
    expect(exchange(wire, { tokens: 3 }).outcome).toBe(Outcome.mismatch);
  });

  test('knows an Anthropic and a Responses stream', () => {
    const anthropic = '{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}';
    expect(exchange([streamOf(anthropic, '{"type":"message_stop"}')]).outcome).toBe(Outcome.ok);
    const delta = '{"type":"response.output_text.delta","delta":"a"}';
    const { outcome, seen } = exchange([streamOf(delta, '{"type":"response.completed"}')]);
    expect(outcome).toBe(Outcome.ok);
    expect(seen.answer.tokenEvents).toBe(1);
  });

  test('with one line beyond the bound is malformed and holds no more than the bound', () => {
    const seen = new Exchange({ stream: true, tokens: -1 }, () => {});
    seen.begin('run-1', 0, 0, true);
    const head = Buffer.from(`${sse}\r\n`);
    seen.receive(head, head.length, 1000);
    const piece = Buffer.alloc(64 * 1024, 97);
    for (let i = 0; i < 64; i++) seen.receive(piece, piece.length, 2000);
    seen.parser.end();
    expect(seen.answer.malformed).toBe(true);
    expect(seen.verdict()).not.toBe(Outcome.ok);
  });
});

describe('one JSON answer', () => {
  const good = sized(
    json,
    '{"choices":[{"message":{"content":"x"}}],"usage":{"completion_tokens":16,"prompt_tokens":2}}',
  );

  test('is complete with its usage', () => {
    const { outcome, seen } = exchange([good], { stream: false, tokens: 16 });
    expect(outcome).toBe(Outcome.ok);
    expect(seen.outputTokens).toBe(16);
    expect(seen.answer.promptTokens).toBe(2);
  });

  test.each([
    ['nothing at all is a reset', [], Outcome.reset],
    ['half a head is truncated', ['HTTP/1.1 200 OK\r\n'], Outcome.truncated],
    ['a short body is truncated', [good.slice(0, -5)], Outcome.truncated],
    [
      'a 429 is a client-class status',
      [sized('HTTP/1.1 429 Too Many\r\n', '{}')],
      Outcome.status4xx,
    ],
    ['a 502 is a server-class status', [sized('HTTP/1.1 502 Bad\r\n', '{}')], Outcome.status5xx],
    ['a redirect is another status', [sized('HTTP/1.1 302 Found\r\n', '')], Outcome.statusOther],
    [
      'an error under 200 is an error',
      [sized(json, '{"error":{"message":"x"}}')],
      Outcome.errorBody,
    ],
    ['HTML is malformed', [sized(json, '<html></html>')], Outcome.malformed],
    ['bytes after it are a mismatch', [`${good}HTTP/1.1 200`], Outcome.mismatch],
  ])('%s', (_name, wire, outcome) => {
    expect(exchange(wire, { stream: false }).outcome).toBe(outcome);
  });

  test('meant for another request is a mismatch', () => {
    const wire = [sized(`${json}x-request-id: run-2\r\n`, '{}')];
    expect(exchange(wire, { stream: false, id: 'run-2' }).outcome).toBe(Outcome.ok);
    expect(exchange(wire, { stream: false, id: 'run-1' }).outcome).toBe(Outcome.mismatch);
  });
});
