/**
 * T25 through the whole gateway: no request reaches a replica that its sender did not frame as one.
 *
 * The replica's own ledger is the judge. Each shape is sent whole and split behind every byte that ends
 * something (line ends, colons, spaces); edge.test.ts splits at every byte of an acceptor. Two canary
 * requests behind each step tell that what was sent before has been read.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
} from '../support/gateway.ts';
import { parseResponses, RawClient, rawRequest } from '../support/raw-client.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { hiddenRequest, isRefused, type Shape, shapes } from '../support/smuggling-shapes.ts';
import { eventually } from '../support/until.ts';

const canary = 'GET /healthz HTTP/1.1\r\nhost: canary\r\n\r\n';
const hiddenSha = createHash('sha256')
  .update(hiddenRequest.slice(hiddenRequest.indexOf('\r\n\r\n') + 4), 'latin1')
  .digest('hex');

/** A refusal takes a turn of the loop; the rest is for a busy machine. */
const owedMsMax = 5000;

/** Offsets behind every byte that ends something. */
function segmentEnds(bytes: string): number[] {
  const ends = [...bytes.matchAll(/[\r\n: ]/g)].map(({ index }) => index + 1);
  return ends.filter((end) => end < bytes.length);
}

/**
 * What the engine gives no answer to: node to CONNECT, uWebSockets.js to heads that it cannot read to
 * their end, and to chunks that it cannot once their head has been taken.
 */
const unanswered: Readonly<Record<TestEngine, readonly string[]>> = {
  node: ['connect'],
  uws: [
    'length with a fold',
    'space before the colon of the length',
    'encoding "\\u000bchunked"',
    'space before the colon of the encoding',
    'encoding behind a bare CR',
    'encoding with a fold',
    'encoding as a folded line of another header',
    'chunk size without digits',
    'wrong end of a chunk',
    'missing end of a chunk',
    'header with a NUL',
    'name with a NUL',
    'bare CR in a value',
    'fold before the first header',
    'header without a colon',
    'LF ends the head',
    'no version',
  ],
};

/**
 * Whether a refusal must be read. The node engine owes it always. uWebSockets.js drops a connection
 * whose next request is in the same segment, so it owes it where nothing comes behind the head.
 */
function owesAnswer(engine: TestEngine, shape: Shape, split: number): boolean {
  if (!isRefused(shape, engine) || unanswered[engine].includes(shape.name)) return false;
  return engine === 'node' || split === shape.bytes.indexOf('\r\n\r\n') + 4;
}

describe.each(testEngines)('smuggling, engine %s', (engine) => {
  let replica: ReplicaProcess;
  let gateway: GatewayProcess;
  beforeAll(async () => {
    replica = await replicaProcess({ model: 'm', profile: 'instant' });
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        health: { interval: '10m' },
        log: { level: 'fatal' },
        models: [{ name: 'm', replicas: [{ url: replica.url }] }],
      },
    });
  });
  afterAll(async () => {
    await gateway.finish();
    await replica.close();
  });

  const hiddenSeen = async (): Promise<number> => {
    const attempts = await replica.ledger(undefined, 16_384);
    return attempts.filter(({ bodySha256 }) => bodySha256 === hiddenSha).length;
  };

  async function isRead(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      const { responses } = await rawRequest(gateway.port, canary);
      expect(responses[0]!.status).toBe(200);
    }
  }

  /** What came back on one connection for each way to split the bytes. */
  async function sendEach(shape: Shape, splits: readonly number[]): Promise<Buffer[]> {
    const { bytes } = shape;
    const clients = await Promise.all(splits.map(() => RawClient.connect(gateway.port)));
    for (const part of [0, 1]) {
      await Promise.all(
        clients.map((client, i) =>
          client.send(part === 0 ? bytes.slice(0, splits[i]) : bytes.slice(splits[i])),
        ),
      );
      await isRead();
    }
    await eventually('every admitted request is answered', async () => {
      const { count, states } = await gateway.slots();
      return states.free! + states.reading! === count; // those being read wait for bytes
    });
    const owing = clients.filter((_, i) => owesAnswer(engine, shape, splits[i]!));
    await Promise.race([Promise.all(owing.map((client) => client.responses())), sleep(owedMsMax)]);
    const received = clients.map((client) => client.received);
    await Promise.all(clients.map((client) => client.close()));
    return received;
  }

  test('none of the shapes gets its hidden request to the replica', async () => {
    let connections = 0;
    for (const shape of shapes) {
      const { name, bytes } = shape;
      const splits = [bytes.length, ...segmentEnds(bytes)];
      connections += splits.length;
      const answers = await sendEach(shape, splits);
      for (const [i, received] of answers.entries()) {
        const what = `${name}, split at ${splits[i]}: ${received.toString('latin1').slice(0, 200)}`;
        const { responses } = parseResponses(received, true);
        const served = responses.filter(({ status }) => status < 300);
        expect(served.length, what).toBeLessThanOrEqual(isRefused(shape, engine) ? 0 : 1);
        if (owesAnswer(engine, shape, splits[i]!)) {
          expect(responses[0]?.status, what).toBeGreaterThanOrEqual(400);
        }
      }
      expect(await hiddenSeen(), name).toBe(0);
    }
    process.stdout.write(
      `T25 ${engine}: ${shapes.length} shapes on ${connections} connections, hidden requests executed: 0\n`,
    );
    await expectQuiet(gateway);
  }, 120_000);

  test('the detector sees a hidden request that is executed', async () => {
    await rawRequest(gateway.port, hiddenRequest);
    expect(await hiddenSeen()).toBe(1);
  });
});
