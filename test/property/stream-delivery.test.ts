/** A stream whose usage is taken out again, in random pieces: every event, none twice, none changed. */
import { expect, test } from 'vitest';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import {
  done,
  event,
  finish,
  last,
  role,
  StreamClient,
  said,
  usageOf,
} from '../support/stream-client.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);

const texts = ['a', ' b', 'c ', ' ', '\n', '\u3000', 'é鍵😀', '\\"', 'x'.repeat(80), ''];

interface Sent {
  readonly text: string;
  /** What the client gets of it. */
  readonly given: string;
}

function randomEvent(random: Prng, tokens: number): Sent {
  const text = texts[random.below(texts.length)] as string;
  const usage = usageOf(5, tokens);
  switch (random.below(7)) {
    case 0:
      return same(': ping\n\n');
    case 1:
      return same(said(text));
    case 2:
      // Its data is in two lines, which are one where something is taken out.
      return random.below(2) === 0
        ? same(said(text).replace(',"choices"', ',\ndata: "choices"'))
        : {
            text: said(text, 'one', usage).replace(',"choices"', ',\ndata: "choices"'),
            given: said(text).replace(',"choices"', ', "choices"'),
          };
    case 3:
      return { text: 'data: {"choices":[\n\n', given: '' };
    case 4:
      return {
        text: `: c\nid: 7\n${event({ delta: { content: text } }, { usage })}`,
        given: `: c\nid: 7\n${said(text)}`,
      };
    default:
      return { text: said(text, 'one', usage), given: said(text) };
  }
}

const same = (text: string): Sent => ({ text, given: text });

test('what was asked for in vain is closed up, wherever the stream is cut', () => {
  const random = createPrng(seed);
  for (let round = 0; round < 1500; round++) {
    const events = [same(role())];
    for (let i = random.below(20); i > 0; i--) events.push(randomEvent(random, 20 - i));
    events.push(same(finish()), { text: last(usageOf(5, 20)), given: '' }, same(done));
    const bytes = Buffer.from(events.map(({ text }) => text).join(''));
    const expected = events.map(({ given }) => given).join('');
    const client = new StreamClient({ bytesMax: 4096 });
    client.attempt();
    const sizeMax = [3, 40, 400, bytes.length][random.below(4)] as number;
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + random.below(sizeMax);
      client.pushBytes(Uint8Array.from(bytes.subarray(at, at + size)));
      at += size;
    }
    expect(client.text, `round ${round}`).toBe(expected);
    expect(client.end).toBe('complete');
  }
});
