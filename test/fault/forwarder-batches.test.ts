/** What becomes of the members when something happens to their batch. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { DispatchKind, Outcome } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import {
  ForwarderHarness,
  type HarnessRequest,
  type SendOptions,
} from '../support/forwarder-harness.ts';
import { jsonAnswer, RawReplica, type RawRequest } from '../support/raw-replica.ts';

let replica: RawReplica;
let harness: ForwarderHarness;
beforeEach(async () => {
  replica = await RawReplica.listen();
  const timeouts = { answer: 400, total: 3000 };
  harness = await ForwarderHarness.start({ urls: [replica.url], timeouts });
});
afterEach(async () => {
  expect(harness.snapshot().counter(metrics.settleConflicts, 0)).toBe(0);
  await harness.close();
  await replica.close();
});

const bodyOf = (prompt: string): string => `{"model":"m","prompt":${prompt},"max_tokens":4}`;

const send = (prompt: string, more: boolean, options: SendOptions = {}): HarnessRequest => {
  const body = bodyOf(prompt);
  return harness.send({ route: 2, stream: false, body, prompt, more, ...options });
};

/** A batch of `"p0"`, `"p1"`, … with one set of options each. */
const sendBatch = (...options: readonly SendOptions[]): HarnessRequest[] =>
  options.map((own, i) => send(`"p${i}"`, i < options.length - 1, own));

const promptsOf = ({ body }: RawRequest): string[] =>
  (JSON.parse(body.toString()) as { prompt: string[] }).prompt;

const choicesFor = (prompts: readonly string[], text = ''): object[] =>
  prompts.map((prompt, index) => ({ index, text: prompt + text, finish_reason: 'stop' }));

const answer = (request: RawRequest, choices: readonly object[]): void => {
  request.connection.socket.write(jsonAnswer({ id: 'x', choices }));
};

const serve = (request: RawRequest): void => answer(request, choicesFor(promptsOf(request)));

const textOf = ({ text }: HarnessRequest): string =>
  (JSON.parse(text) as { choices: { text: string }[] }).choices[0]!.text;

test('the call is the body of all with a list of their prompts', async () => {
  replica.respond = serve;
  const requests = sendBatch({}, {}, {});
  for (const [i, request] of requests.entries())
    expect(textOf(await request.ended())).toBe(`p${i}`);
  expect(replica.requests.map(({ body }) => body.toString())).toEqual([bodyOf('["p0","p1","p2"]')]);
  expect(harness.column(requests[1]!.slot, 'sharers')).toBe(3);
});

test('answers larger than a record come in pieces', async () => {
  const text = 'x'.repeat(200_000);
  replica.respond = (request) => answer(request, choicesFor(promptsOf(request), text));
  for (const [i, request] of sendBatch({}, {}).entries()) {
    expect(textOf(await request.ended())).toBe(`p${i}${text}`);
    expect(request.end?.whole).toBe(false);
  }
});

const { dead, busy, cancelled, clientError, slow } = Outcome;
describe('every member is given back once when', () => {
  const refuse =
    (status: number, headers = '') =>
    (request: RawRequest) =>
      request.connection.socket.write(jsonAnswer({ error: { message: 'no' } }, status, headers));
  const say = (choices: object[]) => (request: RawRequest) => answer(request, choices);
  const stream = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n';
  test.each([
    [
      'the replica resets',
      ({ connection }: RawRequest) => connection.socket.resetAndDestroy(),
      'BATCH_FAILED',
      dead,
    ],
    ['it fails', refuse(500), 'BATCH_FAILED', dead],
    ['it limits its rate', refuse(429, 'retry-after: 2\r\n'), 'REPLICA_RATE_LIMITED', busy],
    ['it calls the batch bad', refuse(400), 'BATCH_REFUSED', clientError],
    ['it cannot process the batch', refuse(422), 'BATCH_REFUSED', clientError],
    ['it calls the batch too large', refuse(413), 'BATCH_REFUSED', clientError],
    ['a choice is missing', say(choicesFor(['p0'])), 'BATCH_ANSWER', clientError],
    [
      'it answers with an error',
      (r: RawRequest) => r.connection.socket.write(jsonAnswer({ error: { message: 'x' } })),
      'BATCH_FAILED',
      dead,
    ],
    [
      'it answers with a stream',
      ({ connection }: RawRequest) => connection.socket.write(stream),
      'BATCH_ANSWER',
      clientError,
    ],
    ['it is silent', () => {}, 'BATCH_FAILED', slow],
  ] as const)('%s', async (_name, respond, error, outcome) => {
    const ofRest = error === 'REPLICA_RATE_LIMITED' ? 'BATCH_FAILED' : error;
    replica.respond = respond;
    const requests = sendBatch({}, {}, {});
    for (const [i, request] of requests.entries()) {
      // One call has failed: the first says so of the replica, and the others only that they go alone.
      const told = i === 0 ? { error, outcome } : { error: ofRest, outcome: cancelled };
      const expected = { error: errors[told.error].number, outcome: told.outcome };
      expect(await request.givenBack()).toMatchObject(expected);
      expect(request.released.length).toBe(1);
    }
    expect(harness.snapshot().counter(metrics.batchesFailed, 0)).toBe(1);
    replica.respond = (request) => {
      const prompt = (JSON.parse(request.body.toString()) as { prompt: string }).prompt;
      answer(request, choicesFor([prompt]));
    };
    for (const [i, request] of requests.entries()) {
      request.released = [];
      harness.dispatch(request, 0);
      expect(textOf(await request.ended())).toBe(`p${i}`);
      expect(harness.column(request.slot, 'sharers')).toBe(1);
    }
  });
});

describe('a member that leaves', () => {
  test('by its deadline harms nobody', async () => {
    const [hasty, patient] = sendBatch({ deadlineMs: 100 }, {});
    const { error } = await hasty!.givenBack();
    expect(error).toBe(errors.DEADLINE.number);
    await replica.arrivals(1);
    serve(replica.requests[0]!);
    expect(textOf(await patient!.ended())).toBe('p1');
    expect(harness.snapshot().counter(metrics.settleConflicts, 0)).toBe(0);
  });

  test('leaves memory that may be used again, though the batch still runs', async () => {
    const [gone, stays] = sendBatch({}, {});
    await replica.arrivals(1);
    gone!.abort();
    expect((await gone!.ended()).end?.error).toBe(errors.CLIENT_GONE.number);
    harness.free(gone!);
    const next = send('"other"', false);
    await replica.arrivals(2);
    serve(replica.requests[0]!);
    expect(textOf(await stays!.ended())).toBe('p1');
    answer(replica.requests[1]!, choicesFor(['other']));
    expect(textOf(await next.ended())).toBe('other');
  });

  test('as the last one cuts the call', async () => {
    const requests = sendBatch({}, {});
    await replica.arrivals(1);
    for (const request of requests) request.abort();
    await replica.requests[0]!.connection.closed;
    for (const request of requests) {
      expect((await request.ended()).end?.error).toBe(errors.CLIENT_GONE.number);
    }
  });
});

test('a gateway that stops ends all members', async () => {
  const requests = sendBatch({}, {});
  await replica.arrivals(1);
  harness.setStopping();
  for (const request of requests) {
    expect((await request.givenBack()).error).toBe(errors.SHUTTING_DOWN.number);
  }
});

describe('a scheduler that dies within a batch', () => {
  test('has started what it had written', async () => {
    replica.respond = serve;
    const requests = [send('"p0"', true), send('"p1"', true)];
    for (const [i, request] of requests.entries())
      expect(textOf(await request.ended())).toBe(`p${i}`);
    expect(replica.requests.length).toBe(1);
  });

  test('leaves to its successor records of the same attempts', async () => {
    replica.respond = (request) => {
      const { prompt } = JSON.parse(request.body.toString()) as { prompt: string | string[] };
      answer(request, choicesFor([prompt].flat()));
    };
    const first = send('"p0"', true);
    harness.push(DispatchKind.start, first.slot, first.lease, 0, 1);
    const second = send('"p1"', false);
    expect(textOf(await first.ended())).toBe('p0');
    expect(textOf(await second.ended())).toBe('p1');
    expect(first.released.length).toBe(1);
  });

  test('may have wanted one of them ended', async () => {
    const [gone, stays] = [send('"p0"', true), send('"p1"', true)];
    gone.abort();
    expect((await gone.ended()).end?.error).toBe(errors.CLIENT_GONE.number);
    await replica.arrivals(1);
    serve(replica.requests[0]!);
    expect(textOf(await stays.ended())).toBe('p1');
  });
});

test('members that are not alike, whatever the scheduler says, share no call', async () => {
  replica.respond = (request) => {
    const { prompt } = JSON.parse(request.body.toString()) as { prompt: string | string[] };
    answer(request, choicesFor([prompt].flat()));
  };
  const type = ['content-type', 'application/json'];
  const colder = bodyOf('"p1"').replace('4', '5');
  const options: SendOptions[] = [
    {},
    { body: colder, prompt: '"p1"' },
    { headers: [...type, 'authorization', 'Bearer a'] },
    { headers: [...type, 'authorization', 'Bearer a', 'x-request-id', 'r9'] },
    { headers: [...type, 'idempotency-key', 'k'] },
    { headers: [...type, 'idempotency-key', 'k'] },
  ];
  for (const [i, request] of sendBatch(...options).entries()) {
    expect(textOf(await request.ended())).toBe(`p${i}`);
  }
  expect(replica.requests.map(({ body }) => JSON.parse(body.toString()) as object)).toMatchObject([
    ...[{ prompt: 'p0' }, { prompt: 'p1' }, { prompt: ['p2', 'p3'] }],
    ...[{ prompt: 'p4' }, { prompt: 'p5' }],
  ]);
});
