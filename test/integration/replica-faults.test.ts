import { expect, test } from 'vitest';
import type { Replica, ReplicaOptions } from '../../src/replica/replica.ts';
import { SSE_VARIANTS } from '../../src/replica/sse-variants.ts';
import { renderChat, tokenSeries } from '../../src/replica/tokens.ts';
import { closedAfterEach } from '../support/closing.ts';
import { type ParsedResponses, RawClient, rawPost } from '../support/raw-client.ts';
import { replicaInProcess, replicaProcess } from '../support/replica.ts';
import { checkTokens, readSse, type SseLedger } from '../support/sse-ledger.ts';

const closing = closedAfterEach();

async function start(options: ReplicaOptions = {}): Promise<Replica> {
  const replica = await replicaInProcess(options);
  closing.push(replica);
  return replica;
}

const messages = [{ role: 'user', content: 'hello nonce=F1 [[len=8]]' }];
const series = tokenSeries(renderChat(messages));

function post(fault: string, stream = true, extra: object = {}): string {
  const header = fault === '' ? '' : `x-replica-fault: ${fault}\r\n`;
  return rawPost('/v1/chat/completions', { model: 'm', messages, stream, ...extra }, header);
}

interface Outcome extends ParsedResponses {
  readonly ended: 'fin' | 'reset';
  readonly received: Buffer;
  readonly reads: number;
}

/** Sends one request with a fault that ends the connection and waits for that end. */
async function outcome(port: number, request: string): Promise<Outcome> {
  const client = await RawClient.connect(port);
  await client.send(request);
  const ended = await client.closed;
  const parsed = await client.responses();
  return { ...parsed, ended, received: client.received, reads: client.reads.length };
}

/** Sends one request whose answer is complete by its framing. */
async function answered(port: number, request: string): Promise<Outcome> {
  return outcome(port, request.replace('\r\n', '\r\nconnection: close\r\n'));
}

function ledger(of: ParsedResponses): SseLedger {
  return readSse(of.responses[0]?.body ?? Buffer.alloc(0), series);
}

test.each(['chunked', 'length', 'close'] as const)(
  'a stream in %s framing is whole without a cut and broken with one',
  async (framing) => {
    const { port } = await start();
    const whole = await answered(port, post(`framing=${framing}`));
    expect(whole.responses[0]?.complete).toBe(true);
    expect(ledger(whole)).toMatchObject({ tokens: 8, exact: true, sawDone: true });
    for (const kind of ['fin', 'reset'] as const) {
      const cut = await outcome(port, post(`${kind}-after=3;framing=${framing}`));
      expect(cut.ended).toBe(kind);
      expect(ledger(cut)).toMatchObject({ tokens: 3, exact: true, sawDone: false });
      if (framing !== 'close') expect(cut.responses[0]?.complete).toBe(false);
      const mid = await outcome(port, post(`${kind}-after=3;mid-event;framing=${framing}`));
      expect(ledger(mid)).toMatchObject({ tokens: 3, unfinished: true });
    }
  },
);

test('a whole answer is cut behind the token asked for', async () => {
  const { port } = await start();
  const cut = await outcome(port, post('fin-after=2', false));
  expect(cut.responses[0]?.complete).toBe(false);
  const text = /"content":"([^"]*)/.exec(cut.responses[0]?.body.toString() ?? '')?.[1] ?? '';
  expect(checkTokens(text, series)).toMatchObject({ tokens: 2, exact: true });
});

test.each([
  ['reset=headers', 'reset'],
  ['fin=headers', 'fin'],
] as const)('%s ends the connection before any byte', async (fault, ended) => {
  const replica = await start();
  for (const stream of [true, false]) {
    const result = await outcome(replica.port, post(fault, stream));
    expect(result.ended).toBe(ended);
    expect(result.received.length).toBe(0);
  }
  expect(replica.stats()).toMatchObject({ cut: 2, in_flight: 0 });
});

test.each([
  ['stall=headers', ''],
  ['stall=body', '\r\n\r\n'],
  ['stall-after=2', 'F1:1:'],
  ['hold-after=2', 'F1:1:'],
])('%s sends so much and then waits for the client to leave', async (fault, last) => {
  const replica = await start();
  const client = await RawClient.connect(replica.port);
  await client.send(post(fault));
  await replica.until(({ running, held }) => running === 1 || held === 1);
  await client.until((received) => received.includes(last));
  expect(client.received.includes('F1:2:')).toBe(false);
  await client.close();
  await replica.until(({ aborted }) => aborted === 1);
  expect(replica.stats()).toMatchObject({ in_flight: 0, held: 0, running: 0 });
});

test('a stream held after two tokens goes on when released', async () => {
  const replica = await start();
  const client = await RawClient.connect(replica.port);
  closing.push(client);
  await client.send(post('hold-after=2'));
  await replica.gate.arrivals(1);
  expect(replica.ledger('F1')[0]?.tokens).toBe(2);
  replica.gate.release();
  expect(ledger(await client.responses())).toMatchObject({ tokens: 8, exact: true, sawDone: true });
});

test('every byte offset of a response can be the place of a split or of a cut', async () => {
  const { port } = await start();
  const short = { messages: [{ role: 'user', content: 'nonce=F1 [[len=1]]' }] };
  const request = post('delay=0', true, short);
  const clean = await answered(port, request);
  const whole = clean.received;
  for (let at = 1; at < whole.length; at += 37) {
    const faulty = (fault: string) => post(fault, true, short);
    const split = await answered(port, faulty(`split-raw=${at}`));
    expect(split.responses[0]?.complete).toBe(true);
    expect(timeless(split)).toBe(timeless(clean));
    expect(split.reads).toBeGreaterThan(1);
    const cut = await outcome(port, faulty(`fin-byte=${at}`));
    expect(cut.received.length).toBe(at);
  }
});

test('a split payload is the same payload in two chunks', async () => {
  const { port } = await start();
  const whole = ledger(await answered(port, post('')));
  for (const at of [1, 5, 100, 333]) {
    expect(ledger(await answered(port, post(`split=${at}`)))).toMatchObject({
      text: whole.text,
      sawDone: true,
    });
  }
  const drip = await answered(port, post('drip=0', true, { max_tokens: 2 }));
  expect(ledger(drip)).toMatchObject({ tokens: 2, exact: true, sawDone: true });
});

/** The body as bytes, one a character, without what differs from request to request. */
function timeless(of: ParsedResponses): string {
  const text = of.responses[0]?.body.toString('latin1') ?? '';
  return text.replaceAll(/chatcmpl-\d+-\d+/g, 'ID').replaceAll(/"created":\d+/g, 'CREATED');
}

test.each(Object.entries(SSE_VARIANTS))('variant %s is sent as named', async (name, variant) => {
  const { port } = await start();
  const clean = timeless(await answered(port, post('')));
  const result = await answered(port, post(`sse=${name}`));
  const expected = variant.apply(clean.match(/[\s\S]*?\n\n/g) ?? [], 2).join('');
  expect(timeless(result)).toBe(expected);
  if (variant.legal) {
    expect(ledger(result)).toMatchObject({ tokens: 8, exact: true, sawDone: true, malformed: [] });
  }
});

test.each([
  ['sse=no-done', { tokens: 8, sawDone: false }],
  ['sse=json-garbage', { tokens: 8, sawDone: true, malformed: ['{"id":,,}'] }],
  ['sse=not-json', { tokens: 8, malformed: ['hello'] }],
  ['error-event=0', { tokens: 0, sawDone: false, errors: [{ code: 500 }] }],
  ['error-event=3', { tokens: 3, sawDone: false, errors: [{ code: 500 }] }],
])('%s shows in the ledger of the client', async (fault, expected) => {
  const { port } = await start();
  expect(ledger(await answered(port, post(fault)))).toMatchObject(expected);
});

test.each(['truncate-chunk=2', 'garbage=2'])('%s is no valid chunked body', async (fault) => {
  const { port } = await start();
  const result = await outcome(port, post(fault));
  expect(result.problem !== undefined || result.responses[0]?.complete === false).toBe(true);
});

test.each([14, 16, 17, 64, 20_480])('one event of %i KiB arrives whole', async (kib) => {
  const { port } = await start();
  const result = await answered(port, post(`big-event=${kib * 1024}`));
  const body = result.responses[0]?.body ?? Buffer.alloc(0);
  const longest = body
    .toString()
    .split('\n')
    .reduce((most, line) => Math.max(most, line.length), 0);
  expect(longest).toBe(kib * 1024 + 'data: '.length);
  expect(ledger(result)).toMatchObject({ tokens: 8, exact: true, sawDone: true });
});

test.each([
  ['length=duplicate', /content-length: (\d+)\r\ncontent-length: (?!\1)/],
  ['length=invalid', /content-length: 12abc/],
  ['length=negative', /content-length: -1/],
  ['length=with-chunked', /content-length: \d+\r\ntransfer-encoding: chunked/],
])('%s is in the head', async (fault, expected) => {
  const { port } = await start();
  expect((await outcome(port, post(fault, false))).received.toString()).toMatch(expected);
});

test('a long length is never met and a short one is exceeded', async () => {
  const { port } = await start();
  expect((await outcome(port, post('length=long', false))).responses[0]?.complete).toBe(false);
  const short = await outcome(port, post('length=short', false));
  expect(short.trailingBytes.length).toBeGreaterThan(0);
});

test('statuses carry their retry advice and 200 may hide an error', async () => {
  const { port } = await start();
  const busy = await answered(port, post('status=503;retry-after=5'));
  expect(busy.responses[0]?.status).toBe(503);
  expect(busy.responses[0]?.headers.get('retry-after')).toBe('5');
  expect(busy.responses[0]?.headers.get('retry-after-ms')).toBe('5000');
  const hidden = await answered(port, post('ok-error'));
  expect(hidden.responses[0]?.status).toBe(200);
  expect(JSON.parse(hidden.responses[0]?.body.toString() ?? '')).toHaveProperty('error.message');
});

test('an unknown fault is refused, not ignored', async () => {
  const { port } = await start();
  expect((await answered(port, post('explode'))).responses[0]?.status).toBe(400);
});

test('rules make every third request fail, and health may lie the other way round', async () => {
  const replica = await start();
  replica.setFaults([
    { fault: 'status=500', every: 3 },
    { fault: 'status=503', on: 'health' },
  ]);
  const statuses: (number | undefined)[] = [];
  for (let i = 0; i < 6; i++)
    statuses.push((await answered(replica.port, post(''))).responses[0]?.status);
  expect(statuses).toEqual([200, 200, 500, 200, 200, 500]);
  expect((await fetch(`${replica.url}/health`)).status).toBe(503);
  expect((await fetch(`${replica.url}/v1/models`)).status).toBe(200);
  expect(replica.stats()).toMatchObject({ served: 4, failed: 2 });
});

test('a continuation may be refused, and passes the point of the first fault', async () => {
  const replica = await start();
  const cut = ledger(await outcome(replica.port, post('fin-after=3')));
  const rest = {
    messages: [...messages, { role: 'assistant', content: cut.text }],
    continue_final_message: true,
    add_generation_prompt: false,
  };
  const refused = await answered(replica.port, post('refuse-continuation', true, rest));
  expect(refused.responses[0]?.status).toBe(400);
  const result = await answered(replica.port, post('fin-after=3', true, rest));
  const continued = readSse(result.responses[0]?.body ?? Buffer.alloc(0), series, 3);
  expect(continued).toMatchObject({ tokens: 5, exact: true, sawDone: true });
});

test('kill-after ends the process behind its tokens', async () => {
  const replica = await replicaProcess();
  closing.push(replica);
  const result = await outcome(replica.port, post('kill-after=3'));
  expect(ledger(result)).toMatchObject({ tokens: 3, exact: true, sawDone: false });
  await replica.close();
  await expect(RawClient.connect(replica.port)).rejects.toThrow('ECONNREFUSED');
});
