/**
 * Streams through the whole gateway: what the replica sent is what the client gets, byte for byte, and
 * whatever breaks is flagged. T11, T12, T24, T03 in every framing, and I2 under mixed faults.
 */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { SSE_VARIANTS } from '../../src/replica/sse-variants.ts';
import { naturalLength, tokensText } from '../../src/replica/tokens.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
} from '../support/gateway.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  roleEvent,
  sseHead,
  tokenEvent,
  usageEvent,
} from '../support/raw-replica.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { answerTokens, Call, type CallEnd, call, heldBack } from '../support/traffic.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
/** More than two connections' socket buffers hold, in bytes: Linux gives each up to 32 MiB and 4 MiB. */
const mostHeld = 128 * 1024 * 1024;
const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Runs `job` for 0 to count - 1, some at a time. */
async function parallel(count: number, job: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const runner = async (): Promise<void> => {
    while (next < count) await job(next++);
  };
  await Promise.all(Array.from({ length: 32 }, runner));
}

interface Scene {
  readonly gateway: GatewayProcess;
  readonly raw: RawReplica;
}

/** A gateway in front of a replica whose every byte the test writes. */
function rawScene(engine: TestEngine): Scene {
  const scene = {} as { gateway: GatewayProcess; raw: RawReplica };
  beforeAll(async () => {
    scene.raw = await RawReplica.listen(respondWith(() => ''));
    scene.gateway = await gatewayProcess({
      config: {
        listen: { engine },
        health: { interval: '10m' },
        models: [{ name: 'm', replicas: [{ url: scene.raw.url }] }],
      },
    });
  });
  afterAll(async () => {
    await scene.gateway.close();
    await scene.raw.close();
  });
  return scene;
}

/** Probes get an answer, requests what `respond` writes. */
function respondWith(respond: (request: RawRequest) => unknown): (request: RawRequest) => void {
  return (request) => {
    if (request.method === 'GET') request.connection.socket.write(jsonAnswer({ data: [] }));
    else respond(request);
  };
}

const extraOf = ({ body }: RawRequest, name: string): number =>
  (JSON.parse(body.toString()) as Record<string, number>)[name]!;

describe.each(testEngines)('bytes of a stream, engine %s', (engine) => {
  const scene = rawScene(engine);
  const lines = [
    roleEvent,
    tokenEvent('é漢🙂'),
    ': a comment\n\n',
    tokenEvent(' two'),
    finishEvent,
    usageEvent,
    doneEvent,
  ].join('');
  test.each([
    ['LF', lines],
    ['CRLF', lines.replaceAll('\n', '\r\n')],
    ['CR', lines.replaceAll('\n', '\r')],
  ])('T11: split at every byte it is the same stream, lines end with %s', async (name, text) => {
    const bytes = Buffer.from(text);
    scene.raw.respond = respondWith((request) => {
      const { socket } = request.connection;
      const at = extraOf(request, 'split');
      socket.write(sseHead);
      socket.write(chunk(bytes.subarray(0, at)));
      // Two turns of the loop: the parts leave as two segments.
      setTimeout(
        () => socket.write(Buffer.concat([chunk(bytes.subarray(at)), Buffer.from(lastChunk)])),
        2,
      );
    });
    await parallel(bytes.length - 1, async (index) => {
      const nonce = `t11-${name}-${index}`;
      const options = { nonce, stream: true, extra: { split: index + 1 } };
      const { body, isComplete } = await call(scene.gateway.port, options).ended;
      expect(isComplete, nonce).toBe(true);
      expect(body.toString(), nonce).toBe(text);
    });
    await expectQuiet(scene.gateway);
  });

  test.each([14, 16, 17, 64])(
    'T24: %s KB events keep their bytes under backpressure',
    async (k) => {
      const size = k * 1024;
      const event = (i: number): string =>
        tokenEvent(`${i}:`.padEnd(size - tokenEvent('').length, 'y'));
      const hash = createHash('sha256');
      let written = 0;
      // Socket buffers grow as far as the kernel lets them: the replica writes until it is held back.
      let isEnough = false;
      scene.raw.respond = respondWith(({ connection: { socket } }) => {
        socket.write(sseHead);
        let i = 0;
        const pump = (): void => {
          let isTaken = true;
          while (isTaken && !isEnough) {
            const text = event(i++);
            hash.update(text);
            written += text.length;
            isTaken = socket.write(chunk(text));
            isEnough ||= written >= mostHeld;
          }
          if (!isTaken) return;
          socket.off('drain', pump);
          hash.update(finishEvent + doneEvent);
          socket.write(chunk(finishEvent + doneEvent) + lastChunk);
        };
        socket.on('drain', pump);
        pump();
      });
      const c = call(scene.gateway.port, { nonce: `t24-${k}`, stream: true });
      await c.until(({ status }) => status === 200);
      c.pause();
      await heldBack(scene.gateway, 1, () => written);
      expect(isEnough, 'nothing held the replica back').toBe(false);
      isEnough = true;
      c.resume();
      await c.ended;
      expect(c.isComplete).toBe(true);
      expect(sha(c.body)).toBe(hash.digest('hex'));
      await expectQuiet(scene.gateway);
    },
  );
});

describe.each(testEngines)('faults of a stream, engine %s', (engine) => {
  let replicas: ReplicaProcess[];
  let gateway: GatewayProcess;
  beforeAll(async () => {
    const profile = 'tokens:ttft=2ms,itl=2ms';
    replicas = [
      await replicaProcess({ model: 'm', profile, name: 'a' }),
      await replicaProcess({ model: 'm', profile, name: 'b' }),
    ];
    const [a] = replicas;
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        timeouts: { first_token: '2s', answer: '2s', inter_token: '1s' },
        health: { interval: '10m' },
        // Faults by the hundred must not end in the retry budget.
        retry: { budget: 1, budget_min: 1000 },
        models: [
          { name: 'm', replicas: replicas.map(({ url }) => ({ url })) },
          { name: 'single', replicas: [{ url: a!.url }] },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway.finish();
    for (const replica of replicas) await replica.close();
  });

  const expectPrefix = (c: Call, what = c.nonce): void => {
    const { exact, duplicates, gaps, foreign } = c.ledger;
    expect({ exact, duplicates, gaps, foreign }, what).toEqual({
      exact: true,
      duplicates: 0,
      gaps: 0,
      foreign: 0,
    });
  };

  /** Where the client gets something else than all tokens and `[DONE]`: the end, tokens, error. */
  const otherEnds: Readonly<Record<string, readonly [CallEnd, number, string?]>> = {
    'no-events': ['http-error', 0, 'truncated_stream'],
    'no-finish-no-done': ['stream-error', answerTokens, 'truncated_stream'],
    'done-only': ['done', 0],
    'done-early': ['done', 1],
    // Two events become one that is no JSON, and it does not pass.
    'no-blank-line': ['done', answerTokens - 2],
    'json-truncated': ['done', answerTokens - 1],
  };
  test.each(Object.entries(SSE_VARIANTS))('T12: %s', async (name, { legal }) => {
    const tags = `[[fault:sse=${name}]]`;
    const nonce = `t12-${name}`;
    const c = await new Call(gateway.port, { nonce, tags, stream: true, model: 'single' }).ended;
    const { tokens, errors, foreign, duplicates } = c.ledger;
    expect([foreign, duplicates]).toEqual([0, 0]);
    expect(c.ledger.malformed, 'what is no JSON does not pass').toEqual([]);
    const [end, tokensLeft, code] = otherEnds[name] ?? ['done', answerTokens];
    expect([c.end, tokens]).toEqual([end, tokensLeft]);
    if (end === 'http-error') expect([c.status, c.errorCode]).toEqual([502, code]);
    else expect(errors).toEqual(code === undefined ? [] : [expect.objectContaining({ code })]);
    if (legal) expectPrefix(c);
    await expectQuiet(gateway);
  });

  const cuts = ['chunked', 'length', 'close'].flatMap((framing) =>
    ['fin', 'reset'].map((how) => [framing, how] as const),
  );
  test.each(cuts)(
    'T03, T08: cut anywhere, framing %s by %s: nothing silent',
    async (framing, how) => {
      const ends: Record<string, number> = {};
      const step = 29;
      const bytesMax = 4500;
      await parallel(Math.floor(bytesMax / step) * 2, async (index) => {
        const at = (index >> 1) * step;
        const stream = index % 2 === 0;
        const tags = `[[fault:framing=${framing};${how}-byte=${at}]]`;
        const nonce = `t03-${framing}-${how}-${index}`;
        const c = await call(gateway.port, { nonce, tags, stream, model: 'single' }).ended;
        const what = `${nonce} cut at ${at}, stream ${stream}: ${c.body.subarray(-300)}`;
        expect(['done', 'stream-error', 'http-error'], what).toContain(c.end);
        ends[`${stream ? 'stream' : 'whole'} ${c.end}`] ??= 0;
        ends[`${stream ? 'stream' : 'whole'} ${c.end}`]! += 1;
        if (c.status >= 400) expect(c.status, what).toBe(502);
        else if (stream) expectPrefix(c, what);
        else expect(c.text, what).toBe(tokensText(c.series, 0, answerTokens));
        if (stream && c.end === 'done') expect(c.ledger.tokens, what).toBe(answerTokens);
      });
      // All three outcomes were met, so the cuts did reach the answers.
      expect(Object.keys(ends).sort()).toEqual([
        'stream done',
        'stream http-error',
        'stream stream-error',
        'whole done',
        'whole http-error',
      ]);
      await expectQuiet(gateway);
    },
  );

  test('I2: 200 streams at a time with mixed faults: nothing foreign, twice or missing', async () => {
    const random = createPrng(seed);
    const ends: Record<string, number> = {};
    for (let round = 0; round < 3; round++) {
      const calls = Array.from({ length: 200 }, (_, i) => {
        const nonce = `i2-${round}-${i}`;
        const tags = `${mixedTags(random)} ${random.below(4) === 0 ? '[[utf8]]' : ''}`;
        const asked = 1 + random.below(60);
        return { tags, asked, c: call(gateway.port, { nonce, tags, stream: true, tokens: asked }) };
      });
      for (const { c, tags, asked } of calls) {
        await c.ended;
        const what = `SEED=${seed} ${c.nonce} ${tags}: ${c.end} ${c.body.subarray(-300)}`;
        expect(['done', 'stream-error', 'http-error'], what).toContain(c.end);
        ends[c.end] = (ends[c.end] ?? 0) + 1;
        expectPrefix(c, what);
        if (c.end === 'done') expect(c.ledger.tokens, what).toBe(expectedTokens(c, asked));
      }
      await expectQuiet(gateway);
    }
    process.stdout.write(`I2 ${engine}: SEED=${seed} ${JSON.stringify(ends)}\n`);
    expect(ends.done).toBeGreaterThan(200);
    expect(ends['stream-error']).toBeGreaterThan(50);
  });
});

const expectedTokens = ({ series }: Call, asked: number): number =>
  Math.min(asked, naturalLength(series));

const legalVariants = Object.keys(SSE_VARIANTS).filter((name) => SSE_VARIANTS[name]!.legal);

/** Half of them none; else a fault on whoever is asked, or on replica a alone. */
function mixedTags(random: Prng): string {
  const k = random.below(30);
  const faults = [
    `fin-after=${k}`,
    `reset-after=${k}`,
    `fin-byte=${k * 50}`,
    `truncate-chunk=${k}`,
    `garbage=${k}`,
    `error-event=${k}`,
    `split=${k * 20}`,
    `stall-after=${k}`,
    'status=500',
    'ok-error',
    `sse=${legalVariants[random.below(legalVariants.length)]};sse-at=${k}`,
  ];
  if (random.below(2) === 0) return '';
  const who = random.below(2) === 0 ? '@a' : '';
  return `[[fault${who}:${faults[random.below(faults.length)]}]]`;
}
