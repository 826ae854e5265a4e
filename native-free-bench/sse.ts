/**
 * Question: what does it cost to follow one streamed event, and to know what it says?
 *
 * Included: finding the event in its chunk, its fields, validation of its JSON, token and finish
 * detection. Not included: copying or sending the bytes. Baseline in the same run: what a proxy that
 * parses does, text decoding plus JSON.parse of each payload (its framing is given for free).
 */

import { createPrng } from '../src/lib/prng.ts';
import { CompletionObserver } from '../src/protocol/completion-observer.ts';
import { SseScanner } from '../src/protocol/sse-scanner.ts';
import { createBench } from './harness.ts';

const bench = createBench('sse', 'What does it cost to follow one streamed event?');
const count = bench.parameter('events', { smoke: 50, full: 1000 });
const perChunk = bench.parameter('events_per_chunk', { smoke: 2, full: 4 });

const random = createPrng(bench.seed);
const payloads = Array.from({ length: count }, (_, i) =>
  JSON.stringify({
    id: 'chatcmpl-0f8fad5bd9cb469fa16570867728950e',
    object: 'chat.completion.chunk',
    created: 1_760_000_000,
    model: 'llama-3-8b',
    choices: [{ index: 0, delta: { content: ` token${random.below(1e6)}` }, finish_reason: null }],
    usage: { prompt_tokens: 20, total_tokens: 20 + i, completion_tokens: i },
  }),
);
const framed = payloads.map((payload) => Buffer.from(`data: ${payload}\n\n`));
const stream = Buffer.concat(framed);
bench.hash(stream.length);

function chunksOf(bytes: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < stream.length; at += bytes) {
    chunks.push(Buffer.from(stream.subarray(at, at + bytes)));
  }
  return chunks;
}
const whole: Buffer[] = [];
for (let i = 0; i < count; i += perChunk) whole.push(Buffer.concat(framed.slice(i, i + perChunk)));

const base = bench.measure('toString + JSON.parse, per event', count, () => {
  let tokens = 0;
  for (const event of framed) {
    const parsed = JSON.parse(event.toString('utf8', 6, event.length - 2)) as {
      choices: { delta: { content: string } }[];
    };
    tokens += parsed.choices[0]?.delta.content.length ?? 0;
  }
  return tokens;
});

let bytesSeen = 0;
const scanner = new SseScanner((event) => {
  bytesSeen += event.dataEnd - event.dataStart;
});
const scan = (chunks: readonly Buffer[]) => (): number => {
  bytesSeen = 0;
  for (const chunk of chunks) scanner.push(chunk);
  return bytesSeen;
};
bench.measure('scan, whole events in a chunk', count, scan(whole), base);
bench.measure('scan, 100-byte chunks (events span)', count, scan(chunksOf(100)), base);

const observer = new CompletionObserver();
const observed = new SseScanner((event) => observer.onEvent(event));
bench.measure(
  'scan + observe, whole events in a chunk',
  count,
  () => {
    observer.reset('openai-chat', 1);
    for (const chunk of whole) observed.push(chunk);
    return observer.tokenEvents + observer.usage.completion;
  },
  base,
);
bench.finish();
