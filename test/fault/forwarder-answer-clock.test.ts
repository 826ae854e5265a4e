/** The clock of a request that does not stream: engines send nothing of its answer before its end. */
import { expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { Outcome } from '../../src/shm/rings.layout.ts';
import type { ForwarderHarness, HarnessRequest } from '../support/forwarder-harness.ts';
import { forwarderForAll } from '../support/forwarder-suite.ts';
import { jsonAnswer, type RawReplica, type RawRequest } from '../support/raw-replica.ts';

const clocks = { firstToken: 400, answer: 1200 };
let replica: RawReplica;
let harness: ForwarderHarness;
forwarderForAll({ timeouts: clocks }, (one, of) => {
  harness = one;
  replica = of;
});

const serve = ({ connection }: RawRequest): void => {
  connection.socket.write(jsonAnswer({ served: true }, 200, 'connection: close\r\n'));
};

async function expectServed(request: HarnessRequest): Promise<void> {
  await harness.until(() => request.end !== undefined && request.released.length > 0);
  expect(JSON.parse(request.text)).toEqual({ served: true });
  expect(request.released.at(-1)).toMatchObject({ outcome: Outcome.ok, error: 0 });
  harness.free(request);
}

test.each([
  ['F06: no head', '', errors.HEADERS_TIMEOUT],
  [
    'F07: a head and no body',
    'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n',
    errors.FIRST_TOKEN_TIMEOUT,
  ],
])('%s within timeouts.answer gives the request back', async (_name, bytes, { number }) => {
  replica.respond = ({ connection }) => connection.socket.write(bytes);
  const start = performance.now();
  const request = harness.send({ stream: false });
  const released = await request.givenBack();
  expect(performance.now() - start).toBeGreaterThanOrEqual(clocks.answer);
  const { resuming } = SlotState;
  expect(released).toMatchObject({ error: number, outcome: Outcome.slow, state: resuming });
  replica.respond = serve;
  harness.dispatch(request, 0);
  await harness.until(() => request.released.length === 2);
  await expectServed(request);
});

test('a whole answer may take longer than a first token', async () => {
  const seen = replica.requests.length;
  const whole = harness.send({ stream: false });
  await replica.arrivals(seen + 1);
  // A stream that is sent later is found silent by the same tick of the clocks or a later one.
  const stream = harness.send();
  expect(await stream.givenBack()).toMatchObject({ error: errors.HEADERS_TIMEOUT.number });
  serve(replica.requests[seen]!);
  await expectServed(whole);
  replica.respond = serve;
  harness.dispatch(stream, 0);
  await harness.until(() => stream.released.length === 2);
  await expectServed(stream);
});
