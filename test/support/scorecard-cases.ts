/**
 * The requests of the failover scorecard: what the first replica does, what the client must see within
 * which clock, what the books must say. F15 is a course of its own (comeback.ts).
 */
import { expect } from 'vitest';
import { promptTokenCount, renderChat } from '../../src/replica/tokens.ts';
import type { ClusterView } from './admin-pages.ts';
import type { GatewayProcess } from './gateway.ts';
import type { ReplicaProcess } from './replica.ts';
import { total } from './scenario.ts';
import { answerTokens, type Call, type CallEnd, reached } from './traffic.ts';

export const connectMs = 1000;
export const firstTokenMs = 1000;
export const interTokenMs = 400;
const deadlineMs = 1500;
/** Ticks of the clocks and a busy machine; less than any clock, so that none is waited for twice. */
const slackMs = 900;
const pauseMs = 5000;
export const unresolved = 'http://replica.invalid:8000';

/** What a check may look at once its request is over. */
export interface Checked {
  readonly gateway: GatewayProcess;
  readonly first: ReplicaProcess;
  readonly second: ReplicaProcess;
  readonly c: Call;
  readonly nonce: string;
  readonly model: string;
  /** One more request to the same replicas, without faults. */
  readonly again: (nonce: string) => Promise<Call>;
}

export interface ScoreCase {
  readonly id: string;
  readonly fault: string;
  readonly kind: 'stream' | 'whole';
  /** Faults of the replicas; nothing: none. */
  readonly first: string;
  readonly second?: string;
  /** Of the first replica, where it is none of ours. */
  readonly url?: string;
  /** It refuses connections. */
  readonly isClosed: boolean;
  /** A stream breaks behind its first token; the model has another replica go on. */
  readonly isBreak: boolean;
  readonly isContinued: boolean;
  readonly end: CallEnd;
  /** Status where it is not 200, and the code of the error body or event. */
  readonly status?: number;
  readonly code?: string;
  /** Tokens a stream has delivered when it ends with an error. */
  readonly tokens?: number;
  /** Requests that reach the first and the second replica. */
  readonly attempts: readonly [number, number];
  readonly atLeastMs: number;
  readonly atMostMs: number;
  /** It counts as an error of the first replica; else its breaker is not moved. */
  readonly isBlamed: boolean;
  /** Requests that are tried again, where it is not as often as the second replica is asked. */
  readonly retries?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly check?: (checked: Checked) => Promise<void>;
}

type More = Partial<ScoreCase>;

/** A request that the second replica serves, streaming and not. */
function served(id: string, fault: string, first: string, more: More = {}): ScoreCase[] {
  return (['stream', 'whole'] as const).map((kind) => ({
    ...{ id, fault, kind, first, isClosed: false, isBreak: false, isContinued: true },
    ...{ end: 'done' as const, attempts: [1, 1] as const, isBlamed: true },
    ...{ atLeastMs: 0, atMostMs: slackMs, ...more },
  }));
}

/** A stream that breaks: it goes on at the second replica, or ends with an error event. */
function broken(id: string, fault: string, first: string, code: string, more: More = {}) {
  const stream = { ...more, isBreak: true };
  const [continued, whole] = served(id, fault, first, stream) as [ScoreCase, ScoreCase];
  const ends = { end: 'stream-error', attempts: [1, 0], tokens: 3, code } as const;
  return [continued, { ...continued, ...ends, isContinued: false }, whole];
}

export function casesOf(): readonly ScoreCase[] {
  const overFirstToken = { atLeastMs: firstTokenMs, atMostMs: firstTokenMs + slackMs };
  return [
    ...served('F01', '500', 'status=500'),
    ...served('F02', '503 with retry-after: 5', 'status=503;retry-after=5', {
      ...{ isBlamed: false, check: expectPaused },
    }),
    ...served('F03', 'both 429 with retry-after', 'status=429;retry-after=7', {
      ...{ second: 'status=429;retry-after=3', isBlamed: false, check: expectSmallerWait },
      ...{ end: 'http-error', status: 429, code: 'rate_limit_exceeded' },
    }),
    ...served('F04', 'refuses the connection', 'status=500', {
      ...{ isClosed: true, attempts: [0, 1], atMostMs: connectMs + 50 },
    }),
    ...served('F05', 'name does not resolve', 'status=500', {
      ...{ url: unresolved, attempts: [0, 1], check: expectUnresolved },
      // It is known before the first request.
      ...{ isBlamed: false, retries: 0 },
    }),
    // Less than twice the clock: it is waited for once.
    ...served('F06', 'never sends headers', 'stall=headers', overFirstToken),
    ...served('F07', 'headers and no token', 'stall=body', overFirstToken),
    ...['fin', 'reset'].flatMap((how) =>
      ['chunked', 'close', 'length'].flatMap((framing) => {
        const first = `framing=${framing};${how}-after=3`;
        return broken('F08', `${how} after 3 tokens, ${framing}`, first, 'truncated_stream');
      }),
    ),
    ...broken('F08', 'fin in an event', 'fin-after=3;mid-event', 'truncated_stream'),
    ...broken('F08', 'cut in a chunk', 'truncate-chunk=3', 'truncated_stream'),
    ...broken('F09', 'stalls after 3 tokens', 'stall-after=3', 'inter_token_timeout').map(
      (each) => ({
        ...each,
        // Of a whole answer the clock until its first byte counts.
        atLeastMs: each.kind === 'stream' ? interTokenMs : 0,
        atMostMs: firstTokenMs + interTokenMs + slackMs,
      }),
    ),
    ...served('F10', 'one malformed event', 'sse=json-garbage;sse-at=4', {
      ...{ attempts: [1, 0], isBlamed: false, check: expectDropped },
    }),
    ...served('F11', '400', 'status=400', {
      ...{ attempts: [1, 0], isBlamed: false, check: expectUnchanged },
      ...{ end: 'http-error', status: 400, code: 'simulated' },
    }),
    ...['401', '403'].flatMap((status) =>
      served('F12', status, `status=${status}`, { isBlamed: false, check: expectMisconfigured }),
    ),
    ...served('F13', '200 with an error body', 'ok-error'),
    ...served('F13', 'an error event first', 'error-event=0').slice(0, 1),
    ...drips(),
    ...served('F16', 'dies after 7 tokens, usage asked', 'fin-after=7', {
      ...{ extra: { stream_options: { include_usage: true } }, isBreak: true },
      check: expectExact,
    }),
  ];
}

/** A token, or a byte of a whole answer, just within the clock between two of them. */
function drips(): ScoreCase[] {
  const gapMs = interTokenMs * 0.9;
  const more: More = {
    ...{ attempts: [1, 0], isBlamed: false, headers: { 'x-sluice-deadline-ms': `${deadlineMs}` } },
    ...{ code: 'deadline_exceeded', atLeastMs: deadlineMs, atMostMs: deadlineMs + slackMs },
  };
  const [stream] = served('F14', 'drips until the deadline', `slow=${gapMs / 2}`, {
    ...{ ...more, end: 'stream-error', isBreak: true },
    check: async ({ c }) => expect(c.tokens).toBeGreaterThanOrEqual(2),
  });
  const [, whole] = served('F14', 'drips until the deadline', `drip-raw=${gapMs}`, {
    ...{ ...more, end: 'http-error', status: 504 },
  });
  return [stream as ScoreCase, whole as ScoreCase];
}

/** Left alone for as long as it asked, and used again afterwards. */
async function expectPaused({ first, c, nonce, again }: Checked): Promise<void> {
  for (let i = 0, asked = 0; asked === 0; i++) {
    const probe = `${nonce}-${i}`;
    const answer = await again(probe);
    expect(answer.end).toBe('done');
    expect(answer.startedAt - c.startedAt).toBeLessThan(pauseMs + 2000);
    const ledger = await first.ledger(probe);
    asked = ledger.length;
    if (asked > 0) expect(ledger[0]!.start - c.startedAt).toBeGreaterThanOrEqual(pauseMs);
  }
}

async function expectSmallerWait({ first, second, c, nonce, again }: Checked): Promise<void> {
  const another = await again(`${nonce}-again`);
  for (const { end, status, headers } of [c, another]) {
    expect([end, status, headers['retry-after']]).toEqual(['http-error', 429, '3']);
    const waitMs = Number(headers['retry-after-ms']);
    expect(waitMs).toBeGreaterThan(2000);
    expect(waitMs).toBeLessThanOrEqual(3000);
  }
  for (const replica of [first, second]) {
    expect(await replica.ledger(another.nonce), 'nobody is hammered').toEqual([]);
  }
}

async function expectUnresolved({ gateway, model }: Checked): Promise<void> {
  const { replicas } = await reached(
    () => gateway.cluster(),
    (view) => /ENOTFOUND|EAI_AGAIN|resolve/.test(reasonOf(view, `${model}-first`)),
    'the reason',
    60_000,
  );
  expect(replicas.find(({ name }) => name === `${model}-first`)?.healthy).toBe(false);
}

const reasonOf = ({ replicas }: ClusterView, replica: string): string =>
  replicas.find(({ name }) => name === replica)?.reason ?? '';

async function expectDropped({ gateway, model, c }: Checked): Promise<void> {
  const name = 'sluice_stream_malformed_events_total';
  expect(total(await gateway.metrics(), name, { model })).toBe(c.isStream ? 1 : 0);
}

/** As the replica says it to whoever asks it. */
async function expectUnchanged({ first, c, nonce, model }: Checked): Promise<void> {
  const response = await fetch(`${first.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'x-request-id': nonce, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'x' }] }),
  });
  expect(response.status).toBe(400);
  expect(c.headers['content-type']).toBe(response.headers.get('content-type'));
  expect(c.body.toString()).toBe(await response.text());
}

/** Said in the log as an error with what to do; the replica is not unhealthy. */
async function expectMisconfigured({ gateway, model }: Checked): Promise<void> {
  const replica = `${model}-first`;
  const { replicas } = await gateway.cluster();
  expect(replicas.find(({ name }) => name === replica)).toMatchObject({
    ...{ healthy: true, ejections: 0 },
  });
  await gateway.said(`"${replica}"`);
  const line = gateway
    .output()
    .split('\n')
    .find((text) => text.includes(`"${replica}"`));
  expect(line).toContain('replica_unauthorized');
  expect(line).toContain('the replica is misconfigured (`api_key`)');
}

/** Usage, id, model and finish of one answer; both replicas named, in their order. */
async function expectExact({ gateway, c, nonce, model }: Checked): Promise<void> {
  const prompt = renderChat([{ role: 'user', content: `nonce=${nonce} ` }]);
  const usage = { prompt_tokens: promptTokenCount(prompt), completion_tokens: answerTokens };
  const chunks = c.isStream
    ? [...c.body.toString().matchAll(/^data: (\{.*)$/gm)].map(([, json]) => JSON.parse(json!))
    : [JSON.parse(c.body.toString())];
  // The answer is that of the replica that began it.
  const began = c.isStream ? 'first' : 'second';
  for (const chunk of chunks) {
    expect(chunk.id).toMatch(new RegExp(`^chatcmpl-${began}-\\d+$`));
    expect([chunk.id, chunk.model]).toEqual([chunks[0].id, model]);
  }
  expect(chunks.flatMap((chunk) => chunk.usage ?? [])).toEqual([expect.objectContaining(usage)]);
  const reasons = chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? []);
  expect(reasons).toEqual(['length']);
  expect(c.headers['x-sluice-replica']).toBe(`${model}-${began}`);
  const explained = await fetch(`${gateway.adminUrl}/admin/explain/${nonce}`);
  const { attempts } = (await explained.json()) as {
    attempts: { attempt: number; replica: string }[];
  };
  const inOrder = attempts.toSorted((a, b) => a.attempt - b.attempt);
  expect(inOrder.map(({ attempt, replica }) => [attempt, replica])).toEqual([
    [1, `${model}-first`],
    [2, `${model}-second`],
  ]);
}
