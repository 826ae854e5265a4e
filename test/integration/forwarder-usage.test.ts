/** What a replica says it used is kept however the answer ends: slot, metrics and scheduler agree. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { TokenType } from '../../src/telemetry/labels.ts';
import { ForwarderHarness, type HarnessRequest } from '../support/forwarder-harness.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  RawReplica,
  sse,
  tokenEvent,
  usageEvent,
} from '../support/raw-replica.ts';

let replica: RawReplica;
let harness: ForwarderHarness;
let countedBefore: number;
beforeAll(async () => {
  replica = await RawReplica.listen();
  harness = await ForwarderHarness.start({ urls: [replica.url] });
});
afterAll(async () => {
  await harness.close();
  await replica.close();
});
beforeEach(() => {
  countedBefore = counted();
});

/** Tokens of model 0, whose types are the first series. */
function counted(): number {
  const snapshot = harness.snapshot();
  const { input, output } = TokenType;
  return snapshot.counter(metrics.tokens, input) + snapshot.counter(metrics.tokens, output);
}

function expectUsage(request: HarnessRequest, prompt: number, completion: number): void {
  const { slot } = request;
  expect(harness.column(slot, 'promptTokens')).toBe(prompt);
  expect(harness.column(slot, 'completionTokens')).toBe(completion);
  expect(request.reported).toEqual([prompt, completion]);
  expect(counted() - countedBefore).toBe(prompt + completion);
  harness.free(request);
}

test('a whole answer that is larger than the window', async () => {
  const usage = { prompt_tokens: 11, completion_tokens: 4 };
  const answer = jsonAnswer({ data: 'x'.repeat(300_000), usage });
  replica.respond = ({ connection }) => connection.socket.write(answer);
  const request = await harness.send().ended();
  expect(request.end).toEqual({ error: 0, whole: false });
  expectUsage(request, 11, 4);
});

const begun = sse(chunk(tokenEvent('a') + usageEvent));

test('a stream that breaks', async () => {
  replica.respond = ({ connection }) => connection.socket.end(begun);
  const request = await harness.send().ended();
  expect(request.end?.error).toBe(errors.TRUNCATED_STREAM.number);
  expectUsage(request, 7, 3);
});

test('a stream that is aborted', async () => {
  replica.respond = ({ connection }) => connection.socket.write(begun);
  const request = harness.send();
  await harness.until(() => request.text.endsWith(usageEvent));
  request.abort();
  await request.ended();
  expect(request.end?.error).toBe(errors.CLIENT_GONE.number);
  expectUsage(request, 7, 3);
});

test('a stream that breaks without usage: events with tokens are counted', async () => {
  replica.respond = ({ connection }) => connection.socket.end(sse(chunk(tokenEvent('a'))));
  const request = await harness.send().ended();
  expect(harness.column(request.slot, 'promptTokens')).toBe(-1);
  expect(request.reported).toEqual([-1, 1]);
  expect(counted()).toBe(countedBefore + 1);
  harness.free(request);
});

test('a stream that ends well without usage: the same', async () => {
  const before = counted();
  replica.respond = ({ connection }) =>
    connection.socket.end(sse(chunk(tokenEvent('a') + finishEvent + doneEvent)));
  const request = await harness.send().ended();
  expect(request.reported).toEqual([-1, 1]);
  expect(counted()).toBe(before + 1);
  harness.free(request);
});
