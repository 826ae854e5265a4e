/**
 * T25, grammar fuzz: random requests out of legal and illegal parts go to both engines at once.
 *
 * A second request stands behind each. No answer is given before all bytes have been read, so the second
 * one may never be executed by anybody. node:http is the oracle: what its strict parser refuses the
 * other engine must not admit. Left out of that comparison are chunked bodies, because uWebSockets.js
 * reads some sloppy chunk lines and such a connection never carries another request; nameless headers,
 * because it hides them and all behind them from everybody; and bytes from 0x80 on at the ends of a
 * value, which it trims off before anybody sees them (docs/adr/0007).
 *
 * Prints its seed and takes SEED=…; runs FUZZ_SECONDS, 4 by default.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { AcceptorHarness, type Arrival, type Engine } from '../support/acceptor-harness.ts';
import { RawClient, rawRequest } from '../support/raw-client.ts';
import { hiddenMark, hiddenRequest } from '../support/smuggling-shapes.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const seconds = Number(process.env.FUZZ_SECONDS ?? 4);
const batch = 64;
const body = '{"model":"m","messages":[]}';

class Twin {
  readonly harness: AcceptorHarness;
  held: Arrival[] = [];
  hidden = 0;
  /** Bodies admitted, by the id each request carries. */
  readonly admitted = new Map<string, string>();

  constructor(harness: AcceptorHarness) {
    this.harness = harness;
    harness.onArrival = (arrival) => {
      const text = harness.body(arrival).toString('latin1');
      if (text.includes(hiddenMark)) this.hidden++;
      const blob = harness.headerBlob(arrival);
      this.admitted.set(blob[blob.indexOf('x-request-id') + 1]!, text);
      this.held.push(arrival);
    };
  }

  static async start(engine: Engine): Promise<Twin> {
    return new Twin(await AcceptorHarness.start({ engine, slots: 512 }));
  }

  async read(): Promise<void> {
    await rawRequest(this.harness.port, 'GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n');
    await rawRequest(this.harness.port, 'GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n');
  }

  async send(cases: readonly Case[]): Promise<void> {
    const clients = await Promise.all(cases.map(() => RawClient.connect(this.harness.port)));
    for (const part of [0, 1] as const) {
      await Promise.all(
        clients.map((client, i) => {
          const { bytes, split } = cases[i]!;
          return client.send(part === 0 ? bytes.slice(0, split) : bytes.slice(split));
        }),
      );
      await this.read();
    }
    for (const arrival of this.held) {
      if (this.harness.column(arrival.slot, 'clientGone') === 0) this.harness.whole(arrival, 'ok');
      else this.harness.refuse(arrival, 99);
    }
    this.held = [];
    await Promise.all(clients.map((client) => client.close()));
    await this.harness.quiet();
  }
}

interface Case {
  readonly id: string;
  readonly bytes: string;
  readonly split: number;
  /** Left out of the comparison. */
  readonly isLenient: boolean;
}

const pick = <T>(random: Prng, list: readonly T[]): T => list[random.below(list.length)]!;
const ends = [
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\n',
  '\r',
  '\r\r\n',
  ' \r\n',
];
const colons = [': ', ': ', ': ', ': ', ':', ' : ', ':\t', ':\x0b', '', ':\r\n '];
const lengthValues = [
  `${body.length}`,
  `${body.length}`,
  '0',
  '3',
  '',
  '+3',
  '0x3',
  '3,3',
  ' 3',
  '3 ',
  '1e1',
  '-1',
  '999999999999999999999',
  '\x003',
  `${body.length}\xff`,
  `\x80${body.length}`,
  '2\xa07',
];
const encodingValues = [
  'chunked',
  'chunked',
  'identity',
  '',
  'xchunked',
  'gzip, chunked',
  'chunked, chunked',
  'Chunked',
  'chunked\x00',
  '\tchunked',
  'chunked;a',
  'chunked\xff',
  '\x80chunked',
];
const lengthNames = [
  'Content-Length',
  'content-length',
  'Content_Length',
  'Content-Length\x00',
  ' Content-Length',
  'Content-Lengt',
];
const encodingNames = [
  'Transfer-Encoding',
  'transfer-encoding',
  'Transfer_Encoding',
  'Transfer-Encoding\t',
];
const otherHeaders = [
  'X: y',
  'Host: u',
  'Expect: 100-continue',
  'Connection: keep-alive',
  'Connection: close, te',
  'Content-Type: a',
  'X:',
  ': x',
  'X',
  'X: \x00',
  'Upgrade: h2c',
  'TE: trailers',
  'Content-Encoding: identity',
  `X: ${'z'.repeat(300)}`,
];
const chunkBodies = [
  `1b\r\n${body}\r\n0\r\n\r\n`,
  `1B\r\n${body}\r\n0\r\n\r\n`,
  `1b;a=b\r\n${body}\r\n0\r\n\r\n`,
  `1b \r\n${body}\r\n0\r\n\r\n`,
  `1b\n${body}\n0\n\n`,
  `01b\r\n${body}\r\n0\r\nX: y\r\n\r\n`,
  `\r\n${body}`,
  `5\r\n${body}\r\n0\r\n\r\n`,
  '0\r\n\r\n',
  `x\r\n${body}\r\n0\r\n\r\n`,
  `fffffffffffffffff\r\n${body}`,
];

function makeCase(random: Prng, number: number): Case {
  const id = `f${number}`;
  const odds = (n: number): boolean => random.below(n) === 0;
  const method = odds(8) ? pick(random, ['GET', 'post', 'PUT', 'P\x00ST', '', 'OPTIONS']) : 'POST';
  const target = odds(12)
    ? pick(random, ['/', '*', 'http://t/', '/healthz', '/v1/chat/completions?a', '/v1/%63hat'])
    : '/v1/chat/completions';
  const version = odds(12)
    ? pick(random, ['HTTP/1.0', 'HTTP/1.2', 'HTTP/2.0', 'http/1.1', 'HTTP/1.1 ', ''])
    : 'HTTP/1.1';
  const lines = [`x-request-id: ${id}`];
  if (!odds(15)) lines.push('Host: t');
  const header = (names: readonly string[], values: readonly string[]): string =>
    (odds(4) ? pick(random, names) : names[0]) +
    (odds(5) ? pick(random, colons) : ': ') +
    (odds(2) ? pick(random, values) : values[0]);
  const isChunked = odds(3);
  if (isChunked) lines.push(header(encodingNames, encodingValues));
  if (!isChunked || odds(6)) lines.push(header(lengthNames, lengthValues));
  if (odds(8)) lines.push(header(lengthNames, lengthValues));
  if (odds(10)) lines.push(header(encodingNames, encodingValues));
  for (let extra = random.below(3); extra > 0; extra--) lines.push(pick(random, otherHeaders));
  for (let i = lines.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [lines[i], lines[j]] = [lines[j]!, lines[i]!];
  }
  const head = [`${method} ${target} ${version}`, ...lines, '']
    .map((line) => line + (odds(25) ? pick(random, ends) : '\r\n'))
    .join('');
  const sent = lines.some((line) => /transfer.encoding/i.test(line))
    ? pick(random, chunkBodies)
    : body;
  const bytes = head + sent + hiddenRequest;
  return {
    id,
    bytes,
    split: 1 + random.below(bytes.length - 1),
    isLenient: /transfer.encoding|^:|[\x80-\xff][^\S\n]*$|:[^\S\n]*[\x80-\xff]/im.test(head),
  };
}

let uws: Twin;
let node: Twin;
beforeAll(async () => {
  [uws, node] = await Promise.all([Twin.start('uws'), Twin.start('node')]);
});
afterAll(async () => {
  await Promise.all([uws.harness.stop(), node.harness.stop()]);
});

test(
  `random requests never run the one behind them (SEED=${seed})`,
  async () => {
    const random = createPrng(seed);
    const until = performance.now() + seconds * 1000;
    let count = 0;
    let admitted = 0;
    while (performance.now() < until) {
      const cases = Array.from({ length: batch }, () => makeCase(random, count++));
      await Promise.all([uws.send(cases), node.send(cases)]);
      for (const { id, bytes, isLenient } of cases) {
        const byUws = uws.admitted.get(id);
        if (byUws === undefined) continue;
        admitted++;
        if (!isLenient) expect(node.admitted.get(id), JSON.stringify(bytes)).toBe(byUws);
      }
      expect(uws.hidden + node.hidden, `SEED=${seed}, case ${count}`).toBe(0);
      uws.admitted.clear();
      node.admitted.clear();
    }
    expect(admitted, 'the grammar makes requests that are admitted').toBeGreaterThan(count / 50);
    expect(uws.harness.counter('handlerErrors') + node.harness.counter('handlerErrors')).toBe(0);
    console.log(`fuzz: seed ${seed}, ${count} requests, ${admitted} admitted by uws, 0 hidden`);
  },
  seconds * 1000 + 60_000,
);
