/** Where the id of a response is found: in whole answers and streams, wherever they are cut into chunks. */
import { Buffer } from 'node:buffer';
import { expect, test } from 'vitest';
import { EventStream, type StreamSink } from '../../../src/forwarder/event-stream.ts';
import { WholeAnswer, type WholeSink } from '../../../src/forwarder/whole-answer.ts';
import { AnswerIdHead } from '../../../src/protocol/answer-id-head.ts';
import { CompletionObserver } from '../../../src/protocol/completion-observer.ts';

const observer = new CompletionObserver();
const output = '"output":[{"id":"msg_1","content":[{"text":"\\"id\\":\\"resp_no\\""}]}]';
const wholes = [
  `{"id":"resp_1","object":"response",${output},"status":"completed"}`,
  `{ "object" : "response" , "id" : "resp_1" , ${output} }`,
  `{"metadata":{"id":"resp_no"},"instructions":"{\\"id\\":\\"resp_no\\"}","id":"resp_1",${output}}`,
];

test.each(wholes)('in the head of an answer, over all cuts: %s', (text) => {
  const bytes = Buffer.from(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const head = new AnswerIdHead();
    const first = head.push(bytes.subarray(0, cut), observer);
    expect(['', 'resp_1']).toContain(first);
    const isWhole = cut >= bytes.indexOf('"resp_1"') + '"resp_1"'.length;
    expect(first, `cut at ${cut}`).toBe(isWhole ? 'resp_1' : '');
    if (!isWhole) expect(head.push(bytes.subarray(cut), observer), `cut at ${cut}`).toBe('resp_1');
  }
});

test('byte by byte, and not behind the bound', () => {
  const read = (text: string): { id: string; isFull: boolean } => {
    const head = new AnswerIdHead();
    let id = '';
    for (const byte of Buffer.from(text)) {
      if (id === '' && !head.isFull) id = head.push(Uint8Array.of(byte), observer);
    }
    return { id, isFull: head.isFull };
  };
  expect(read(wholes[0]!)).toEqual({ id: 'resp_1', isFull: false });
  expect(read(`{"x":"${'x'.repeat(5000)}","id":"resp_1"}`)).toEqual({ id: '', isFull: true });
  expect(read('{"output":[]}')).toEqual({ id: '', isFull: false });
});

const facts = {
  ...{ status: 200, shape: 'responses' as const, choices: 1, contentLength: -1, framed: true },
} as const;

/** Tells what the answer said its id was when the first of its bytes were given to the client. */
class Sink implements StreamSink, WholeSink {
  committed = false;
  answer: { readonly id: string } | undefined;
  readonly seen: string[] = [];
  commit(): boolean {
    this.committed = true;
    return true;
  }
  emit(bytes: Uint8Array): void {
    if (bytes.length > 0) this.seen.push(this.answer?.id ?? '');
  }
  whole(): void {
    this.seen.push(this.answer?.id ?? '');
  }
  token(): void {}
  progress(): void {}
  dropped(): void {}
  complete(): void {}
  fail(): void {}
  discard(): void {}
  handOver(): void {}
  askAgain(): void {}
}

const created = [
  'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","status":"in_progress"}}\n\n',
  // vLLM writes the keys in this order.
  'event: response.created\ndata: {"response":{"id":"resp_1","output":[]},"sequence_number":0,"type":"response.created"}\n\n',
];
const rest =
  'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"msg_1","delta":"x"}\n\n' +
  'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1","status":"completed"}}\n\n';

test.each(created)('of a stream it is known before any byte is out, over all cuts: %s', (first) => {
  const bytes = Buffer.from(first + rest);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const sink = new Sink();
    const stream = new EventStream(sink, { ...facts, isJson: false });
    sink.answer = stream;
    stream.push(Buffer.from(bytes.subarray(0, cut)));
    stream.push(Buffer.from(bytes.subarray(cut)));
    stream.end(undefined);
    expect(sink.seen.length).toBeGreaterThan(0);
    expect(new Set(sink.seen), `cut at ${cut}`).toEqual(new Set(['resp_1']));
  }
});

test.each([1_000_000, 8])(
  'of a whole answer, held (%i bytes) or passed on as it comes',
  (bytesMax) => {
    const bytes = Buffer.from(wholes[0]!);
    const idEnd = bytes.indexOf('"resp_1"') + '"resp_1"'.length;
    for (let cut = 0; cut <= bytes.length; cut++) {
      const sink = new Sink();
      const answer = new WholeAnswer(sink, { ...facts, isJson: true }, bytesMax);
      sink.answer = answer;
      answer.push(bytes.subarray(0, cut));
      answer.push(bytes.subarray(cut));
      answer.end(undefined);
      expect(sink.seen.at(-1), `cut at ${cut}`).toBe('resp_1');
      // Bytes before the end of the id may go without it, none behind it.
      const unknown = sink.seen.filter((id) => id === '').length;
      expect(unknown, `cut at ${cut}`).toBeLessThanOrEqual(cut < idEnd ? 2 : 0);
    }
  },
);

test('a stored answer is judged by nothing that was said of it before', () => {
  const shape = 'stored' as const;
  const bodies = [
    '{"id":"resp_1","status":"failed","error":{"message":"x"},"usage":{"input_tokens":9,"output_tokens":9}}',
    '{"object":"error","error":{"message":"x"}}',
    '{"type":"error","error":{"message":"x"}}',
  ];
  for (const body of bodies) {
    observer.reset(shape, 1);
    const bytes = Buffer.from(body);
    expect(observer.onBody(bytes, 0, bytes.length), body).toBe(0);
    expect(observer.usage).toEqual({ prompt: -1, completion: -1, cached: -1 });
  }
});

test('a stored stream ends with its last event, is counted nowhere and passes with its errors', () => {
  const events =
    rest.replace('"completed"}', '"failed","usage":{"input_tokens":9,"output_tokens":9}}') +
    'event: ping\ndata: {}\n\n';
  for (const [text, passed] of [
    [events, rest.length + 45],
    ['event: error\ndata: {"type":"error","message":"x"}\n\n', 51],
  ] as const) {
    const sink = new Sink();
    let bytes = 0;
    sink.emit = (more) => {
      bytes += more.length;
    };
    const stream = new EventStream(sink, { ...facts, shape: 'stored' as const, isJson: false });
    stream.push(Buffer.from(text));
    stream.end(undefined);
    expect(stream.usage).toEqual({ prompt: -1, completion: -1, cached: -1 });
    expect(Math.abs(bytes - passed), text).toBeLessThan(8);
  }
});
