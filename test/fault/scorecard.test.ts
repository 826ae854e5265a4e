/**
 * The failover scorecard, F01 to F14: one request each, streaming and not, the first replica faulty and
 * the second good. What the client sees, within which clock, and what the books say afterwards.
 * F08 and F09 are without continuation: an error event; with it, and F16, they are in
 * continuation.test.ts. Prints the table.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FaultRule } from '../../src/replica/fault-rules.ts';
import type { ClusterView } from '../support/admin-pages.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
} from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { answerTokens, type Call, type CallEnd, call } from '../support/traffic.ts';

const connectMs = 500;
const firstTokenMs = 600;
const interTokenMs = 400;
const deadlineMs = 1500;
/** Ticks of the clocks and a busy machine. */
const slackMs = 450;

interface Row {
  readonly id: string;
  readonly name: string;
  /** Faults of the first replica. */
  readonly first: string;
  readonly end: { readonly stream: CallEnd; readonly whole: CallEnd };
  /** Attempts that reach the first and the second replica. */
  readonly attempts: readonly [number, number];
  /** Status where it is not 200, and the code of the error body or event. */
  readonly status?: number;
  readonly code?: string;
  /** Tokens a stream has delivered when it breaks. */
  readonly tokens?: number;
  readonly atLeastMs?: number;
  readonly atMostMs: number;
  readonly isFirstBlamed: boolean;
}

const served = { stream: 'done', whole: 'done' } as const;
/** After k tokens a stream ends with an error; a whole answer has reached nobody yet. */
const cutStream = { stream: 'stream-error', whole: 'done' } as const;

function failover(id: string, name: string, first: string, more: Partial<Row> = {}): Row {
  const base = { end: served, attempts: [1, 1] as const, atMostMs: slackMs, isFirstBlamed: true };
  return { id, name, first, ...base, ...more };
}

const rows: readonly Row[] = [
  failover('F01', '500', 'status=500'),
  failover('F06', 'never sends headers', 'stall=headers', {
    atLeastMs: firstTokenMs,
    atMostMs: firstTokenMs + slackMs,
  }),
  failover('F07', 'headers and no token', 'stall=body', {
    atLeastMs: firstTokenMs,
    atMostMs: firstTokenMs + slackMs,
  }),
  ...['fin', 'reset'].flatMap((how) =>
    ['chunked', 'close'].map((framing) =>
      failover('F08', `${how} after 3 tokens, ${framing}`, `framing=${framing};${how}-after=3`, {
        end: cutStream,
        tokens: 3,
        code: 'truncated_stream',
      }),
    ),
  ),
  failover('F08', 'fin in the middle of an event', 'fin-after=3;mid-event', {
    end: cutStream,
    tokens: 3,
    code: 'truncated_stream',
  }),
  failover('F08', 'cut in the middle of a chunk', 'truncate-chunk=3', {
    end: cutStream,
    tokens: 3,
  }),
  failover('F09', 'stalls after 3 tokens', 'stall-after=3', {
    end: cutStream,
    tokens: 3,
    atLeastMs: interTokenMs,
    atMostMs: firstTokenMs + interTokenMs + slackMs,
    code: 'inter_token_timeout',
  }),
  failover('F10', 'one malformed event', 'sse=json-garbage', {
    attempts: [1, 0],
    isFirstBlamed: false,
  }),
  failover('F11', '400', 'status=400', {
    attempts: [1, 0],
    end: { stream: 'http-error', whole: 'http-error' },
    status: 400,
    code: 'simulated',
    isFirstBlamed: false,
  }),
  failover('F12', '401', 'status=401', { isFirstBlamed: false }),
  failover('F12', '403', 'status=403', { isFirstBlamed: false }),
  failover('F13', '200 with an error body', 'ok-error'),
];

/** A replica that is paused is left alone for a while; so these have rows of their own. */
const pausing = ['f02', 'f03', 'f04'].flatMap((id) => [`${id}-false`, `${id}-true`]);

const scorecard = (engine: TestEngine): void => {
  const printed: string[] = [];
  let first: ReplicaProcess;
  let second: ReplicaProcess;
  let gateway: GatewayProcess;
  let nonces = 0;

  beforeAll(async () => {
    first = await replicaProcess({ model: 'm', name: 'first', profile: 'tokens:ttft=2ms,itl=2ms' });
    second = await replicaProcess({ model: 'm', profile: 'instant' });
    // A far heavier first replica is picked first whenever it may be.
    const replicas = [
      { url: first.url, name: 'first', weight: 1000 },
      { url: second.url, name: 'second', weight: 0.001 },
    ];
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        log: { level: 'warn' },
        timeouts: {
          connect: `${connectMs}ms`,
          first_token: `${firstTokenMs}ms`,
          answer: `${firstTokenMs}ms`,
          inter_token: `${interTokenMs}ms`,
        },
        health: { interval: '10m' },
        breaker: { mode: 'off' }, // a dozen failures are the script
        models: [
          { name: 'm', policy: 'weighted_least_connections', replicas },
          ...pausing.map((name) => ({
            name,
            policy: 'weighted_least_connections' as const,
            replicas: [
              { url: first.url, name, weight: 1000 },
              { url: second.url, weight: 0.001 },
            ],
          })),
          {
            name: 'nameless',
            policy: 'weighted_least_connections',
            replicas: [
              { url: 'http://replica.invalid:8000', name: 'unresolved', weight: 1000 },
              { url: second.url, name: 'resolved', weight: 0.001 },
            ],
          },
        ],
      },
    });
  });
  afterAll(async () => {
    await gateway.close();
    await first.close();
    await second.close();
    process.stdout.write(`scorecard, engine ${engine}\n${printed.join('\n')}\n`);
  });

  const nameOf = (): string => `f-${engine}-${nonces++}`;
  const of = (view: ClusterView, name: string) => view.replicas.find((r) => r.name === name)!;
  const once = (fault: string, id: string): FaultRule => ({ fault, id });
  const send = (nonce: string, stream: boolean, headers = {}, model = 'm'): Promise<Call> =>
    call(gateway.port, { nonce, stream, headers, model }).ended;
  const print = (id: string, name: string, stream: boolean, c: Call): void => {
    const ms = (c.endedAt - c.startedAt).toFixed(0).padStart(5);
    const kind = stream ? 'stream' : 'whole ';
    printed.push(`${id} ${kind} ${ms} ms  ${String(c.status)} ${c.end.padEnd(12)}  ${name}`);
  };
  const attempts = async (nonce: string): Promise<number[]> => {
    const lists = await Promise.all([first.ledger(nonce), second.ledger(nonce)]);
    return lists.map(({ length }) => length);
  };

  function expectAnswer(row: Row, c: Call, stream: boolean): void {
    const end = stream ? row.end.stream : row.end.whole;
    expect(c.end, c.body.toString()).toBe(end);
    expect(c.status).toBe(row.status ?? 200);
    if (end === 'http-error' && row.code !== undefined) expect(c.errorCode).toBe(row.code);
    if (end === 'done' && stream) {
      const { exact, tokens, finishReason, malformed } = c.ledger;
      expect([exact, tokens, finishReason, malformed]).toEqual([true, answerTokens, 'length', []]);
    }
    if (end !== 'stream-error') return;
    const { exact, tokens, errors, sawDone } = c.ledger;
    expect([exact, tokens, errors.length, sawDone]).toEqual([true, row.tokens, 1, false]);
    if (row.code !== undefined) expect(errors[0]).toMatchObject({ code: row.code });
  }

  const cases = rows.flatMap((row) => [false, true].map((stream) => ({ ...row, stream })));
  test.each(cases)('$id: $name, stream $stream', async ({ stream, ...row }) => {
    const nonce = nameOf();
    await first.setFaults([once(row.first, nonce)]);
    const before = of(await gateway.cluster(), 'first');
    const c = await send(nonce, stream);
    print(row.id, row.name, stream, c);
    expectAnswer(row, c, stream);
    const ms = c.endedAt - c.startedAt;
    expect(ms).toBeLessThan(row.atMostMs);
    if (row.atLeastMs !== undefined && (stream || row.id !== 'F09')) {
      expect(ms).toBeGreaterThanOrEqual(row.atLeastMs);
    }
    // A fault inside a stream is met after the commit: there is no second attempt.
    const isOneAttempt = stream && row.end.stream === 'stream-error';
    expect(await attempts(nonce)).toEqual(isOneAttempt ? [1, 0] : row.attempts);
    const after = of(await gateway.cluster(), 'first');
    expect(after.errors - before.errors).toBe(row.isFirstBlamed ? 1 : 0);
    await expectQuiet(gateway);
  });

  test.each([false, true])('F02: 503 with retry-after: 2, stream %s', async (stream) => {
    const model = `f02-${stream}`;
    const nonce = nameOf();
    await first.setFaults([once('status=503;retry-after=2', nonce)]);
    const before = of(await gateway.cluster(), model);
    const c = await send(nonce, stream, {}, model);
    print('F02', '503 with retry-after: 2', stream, c);
    expect([c.end, await attempts(nonce)]).toEqual(['done', [1, 1]]);
    expect(c.endedAt - c.startedAt).toBeLessThan(slackMs);
    expect(of(await gateway.cluster(), model).errors).toBe(before.errors);
    // Left alone for as long as it asked, and used again afterwards.
    let asked = 0;
    while (asked === 0) {
      const probe = nameOf();
      const answer = await send(probe, false, {}, model);
      expect(answer.end).toBe('done');
      expect(answer.startedAt - c.startedAt).toBeLessThan(2000 + 2000);
      const ledger = await first.ledger(probe);
      asked = ledger.length;
      if (asked > 0) expect(ledger[0]!.start - c.startedAt).toBeGreaterThanOrEqual(2000);
    }
    await expectQuiet(gateway);
  });

  test.each([false, true])('F03: both 429 with retry-after, stream %s', async (stream) => {
    const model = `f03-${stream}`;
    const nonce = nameOf();
    await first.setFaults([once('status=429;retry-after=7', nonce)]);
    await second.setFaults([once('status=429;retry-after=3', nonce)]);
    const c = await send(nonce, stream, {}, model);
    print('F03', 'both 429 with retry-after', stream, c);
    const another = await send(nameOf(), stream, {}, model);
    for (const { end, status, headers } of [c, another]) {
      expect([end, status, headers['retry-after']]).toEqual(['http-error', 429, '3']);
      const waitMs = Number(headers['retry-after-ms']);
      expect(waitMs).toBeGreaterThan(2000);
      expect(waitMs).toBeLessThanOrEqual(3000);
    }
    expect(await attempts(nonce)).toEqual([1, 1]);
    expect(await attempts(another.nonce), 'nobody is hammered').toEqual([0, 0]);
    await expectQuiet(gateway);
  });

  test.each([false, true])('F04: refuses the connection, stream %s', async (stream) => {
    await first.listen(false);
    const nonce = nameOf();
    const c = await send(nonce, stream, {}, `f04-${stream}`);
    await first.listen(true);
    print('F04', 'refuses the connection', stream, c);
    expect([c.end, await attempts(nonce)]).toEqual(['done', [0, 1]]);
    expect(c.endedAt - c.startedAt).toBeLessThan(connectMs + 50);
    await expectQuiet(gateway);
  });

  test.each([false, true])('F05: name does not resolve, stream %s', async (stream) => {
    const c = await send(nameOf(), stream, {}, 'nameless');
    print('F05', 'name does not resolve', stream, c);
    expect(c.end).toBe('done');
    const { healthy, reason } = of(await gateway.cluster(), 'unresolved');
    expect(healthy).toBe(false);
    expect(reason).toMatch(/ENOTFOUND|EAI_AGAIN|resolve/);
    await expectQuiet(gateway);
  });

  test('F13: an error event first in the stream', async () => {
    const nonce = nameOf();
    await first.setFaults([once('error-event=0', nonce)]);
    const c = await send(nonce, true);
    print('F13', 'an error event first in the stream', true, c);
    expect([c.end, await attempts(nonce)]).toEqual(['done', [1, 1]]);
    expect(c.ledger.errors).toEqual([]);
    await expectQuiet(gateway);
  });

  test('F14: tokens just inside the inter-token clock end at the deadline', async () => {
    const nonce = nameOf();
    await first.setFaults([once(`slow=${(interTokenMs * 0.9) / 2}`, nonce)]);
    const before = of(await gateway.cluster(), 'first');
    const c = await send(nonce, true, { 'x-sluice-deadline-ms': String(deadlineMs) });
    print('F14', 'drips until the deadline', true, c);
    expect(c.end).toBe('stream-error');
    const { exact, tokens, errors } = c.ledger;
    expect([exact, errors.length]).toEqual([true, 1]);
    expect(errors[0]).toMatchObject({ code: 'deadline_exceeded' });
    expect(tokens).toBeGreaterThanOrEqual(2);
    const ms = c.endedAt - c.startedAt;
    expect(ms).toBeGreaterThanOrEqual(deadlineMs);
    expect(ms).toBeLessThan(deadlineMs + slackMs);
    const after = of(await gateway.cluster(), 'first');
    expect(after.errors, 'the client chose the deadline').toBe(before.errors);
    await expectQuiet(gateway);
  });

  test('F12: a replica that refuses the key is loudly misconfigured', () => {
    expect(gateway.output()).toMatch(/replica_unauthorized|credentials|misconfigured/);
  });
};

// Each engine has processes of its own and mostly waits for clocks.
describe.concurrent.each(testEngines)('scorecard, engine %s', (engine) => {
  describe('one fault after the other', { concurrent: false }, () => scorecard(engine));
});
