/**
 * Question: what does it cost to know a request, against JSON.parse of the same bytes?
 *
 * Included: validation of the whole body, UTF-8 check, keys, prefix hashes (128 KiB at most). The
 * body lies in shared memory, as in the arena. Subtract nothing. Baseline in the same run: JSON.parse
 * of the body as text, decoding included, which is what a gateway that parses would do.
 */
import { createPrng } from '../src/lib/prng.ts';
import { hashPrefix } from '../src/protocol/prefix-hash.ts';
import { createRequestFacts } from '../src/protocol/request-facts.ts';
import { scanRequest } from '../src/protocol/request-scanner.ts';
import { createBench } from './harness.ts';

const bench = createBench('scanner', 'What does a scan of a request body cost?');
const largeBytes = bench.parameter('large_bytes', { smoke: 16 * 1024, full: 128 * 1024 });
const facts = createRequestFacts();

const words =
  'the quick "brown" fox\njumps over a lazy dog while others of the forest watch it quietly from afar'.split(
    ' ',
  );

function chatBody(bytes: number, turns: number, escapes: 'prose' | 'code'): Buffer {
  const random = createPrng(bench.seed);
  const messages = Array.from({ length: turns }, (_, turn) => {
    let content = '';
    while (content.length < bytes / turns) {
      const word = words[random.below(words.length)] as string;
      content += escapes === 'code' ? `  ${word}("x\\n");\n` : `${word.replaceAll('"', '')} `;
    }
    return { role: turn % 2 === 0 ? 'user' : 'assistant', content };
  });
  const body = { model: 'llama-3-8b', messages, stream: true, max_tokens: 256, temperature: 0.7 };
  return Buffer.from(JSON.stringify(body));
}

function inSharedMemory(source: Buffer): Uint8Array {
  const arena = new Uint8Array(new SharedArrayBuffer(source.length + 64));
  arena.set(source, 8);
  return arena.subarray(8, 8 + source.length);
}

const cases: [string, Buffer][] = [
  ['1 KiB chat', chatBody(850, 2, 'prose')],
  ['large chat, prose', chatBody(largeBytes, 20, 'prose')],
  ['large chat, code (escape-heavy)', chatBody(largeBytes, 20, 'code')],
];
for (const [name, source] of cases) {
  const body = inSharedMemory(source);
  const text = Buffer.from(body.buffer, body.byteOffset, body.length);
  const base = bench.measure(`JSON.parse, ${name}, ${body.length} B`, 1, () => {
    const parsed = JSON.parse(text.toString()) as { max_tokens: number };
    return parsed.max_tokens;
  });
  const scan = (): number => scanRequest(body, body.length, facts) + facts.promptBytes;
  bench.measure(`scanRequest, ${name}`, 1, scan, base);
}
const large = inSharedMemory(cases[1]?.[1] as Buffer);
const pairs = new Int32Array(24);
bench.measure('hashPrefix alone, large chat', 1, () => {
  hashPrefix(large, 64, large.length, pairs);
  return pairs[0] as number;
});
bench.finish();
