/** The real sweep and ending of an acceptor, without its thread; the exchange notes what it is told. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AcceptorState, createAcceptorState } from '../../../src/acceptor/acceptor-state.ts';
import { replicaErrorEvent } from '../../../src/acceptor/answers.ts';
import { KeepAlive } from '../../../src/acceptor/keep-alive.ts';
import { Closing, type Exchange } from '../../../src/acceptor/listener.ts';
import { Phase, Request, type RequestFacts } from '../../../src/acceptor/request.ts';
import { DrainStage } from '../../../src/shm/control.layout.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import { noKeys } from '../../support/no-keys.ts';

const intervalMs = 1000;
const intervalUs = intervalMs * 1000;
let state: AcceptorState;
let keepAlive: KeepAlive;

beforeEach(() => {
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 1024 },
    ...{ arenaBytes: 1024 * 1024, responseRingBytes: 64 * 1024 },
  });
  state = createAcceptorState({
    ...{ thread: 'acceptor', index: 0, memory, metrics: createMetricsRegion(defaultMetricDims) },
    ...{ log: { level: 'silent', sample: 0, pretty: false }, engine: 'node', tls: null },
    ...{ host: '127.0.0.1', port: 0, maxBody: 65_536, maxConnections: 8, streamWindow: 65_536 },
    ...{ models: [], replicas: [], usage: null, keys: noKeys, keepAlive: intervalMs },
  });
  keepAlive = new KeepAlive(state);
});
afterEach(() => state.log.close(100));

/** Takes every write; `isFull` refuses what comes behind the next one. */
class Connection {
  sent = '';
  status = 0;
  closing: Closing = Closing.keep;
  isFull = false;
  isBlocked = false;
  isOpen = true;
  unconfirmedBytes = 0;
  fails = false;

  get hasBegun(): boolean {
    return this.status !== 0;
  }

  begin(status: number): void {
    this.status = status;
  }

  write(data: Uint8Array, start: number, end: number): number {
    if (this.fails) throw new Error('a defect');
    this.sent += Buffer.from(data.subarray(start, end)).toString();
    this.isBlocked = this.isFull;
    this.unconfirmedBytes = this.isFull ? end - start : 0;
    return end - start;
  }

  cut(): void {
    this.isOpen = false;
  }
}

function waiting(dueUs: number): { request: Request; connection: Connection } {
  const connection = new Connection();
  const facts = { requestId: 'id', isAnthropic: false, hasOrigin: false };
  const owner = { body: () => {}, writable: () => {}, gone: () => {} };
  const exchange = connection as unknown as Exchange;
  const request = new Request(exchange, facts as RequestFacts, owner);
  request.phase = Phase.published;
  state.silent.add(request, dueUs);
  return { request, connection };
}

const comments = ({ sent }: Connection): number => sent.split(': keep-alive\n\n').length - 1;

test('a comment when it is due, and the next one an interval later', () => {
  const { connection, request } = waiting(5000);
  keepAlive.sweep(4999);
  expect([connection.status, request.isKeptAlive]).toEqual([0, false]);
  keepAlive.sweep(6000);
  keepAlive.sweep(6000 + intervalUs - 1);
  expect([connection.status, comments(connection), request.isKeptAlive]).toEqual([200, 1, true]);
  keepAlive.sweep(6000 + intervalUs);
  expect(comments(connection)).toBe(2);
  expect(request.outbox.takenBytes).toBe(0);
});

test('a client that takes nothing has one comment on its way', () => {
  const { connection, request } = waiting(5000);
  connection.isFull = true;
  for (let i = 1; i < 5; i++) keepAlive.sweep(i * intervalUs);
  expect(comments(connection)).toBe(1);
  expect(request.outbox.takenBytes).toBe(0);
  connection.isFull = connection.isBlocked = false;
  connection.unconfirmedBytes = 0;
  keepAlive.sweep(5 * intervalUs);
  expect(comments(connection)).toBe(2);
});

test('many that are due at once are served in turns', () => {
  const all = Array.from({ length: 600 }, () => waiting(5000).connection);
  const served = (): number => all.filter((one) => comments(one) === 1).length;
  keepAlive.sweep(5000);
  const first = served();
  expect(first).toBeGreaterThan(0);
  expect(first).toBeLessThan(all.length);
  keepAlive.sweep(5000);
  keepAlive.sweep(5000);
  expect(served()).toBe(all.length);
});

test('a defect cuts the one client and the others are served', () => {
  const [bad, good] = [waiting(5000).connection, waiting(5000).connection];
  bad.fails = true;
  keepAlive.sweep(5000);
  expect([bad.isOpen, good.isOpen, comments(good)]).toEqual([false, true, 1]);
});

test('while the gateway drains the head says that the connection closes', () => {
  const { connection } = waiting(5000);
  Atomics.store(state.control.words, state.control.draining, DrainStage.announced);
  keepAlive.sweep(5000);
  expect(connection.closing).toBe(Closing.announce);
});

test.each([
  ['{"error":{"message":"no"}}', 'data: {"error":{"message":"no"}}\n\n'],
  ['{"error":"no"}', 'data: {"error":"no"}\n\n'],
  [' {\r\n"error":\n1e400}\n', 'data: {"error":{ "error": 1e400}}\n\n'],
  ['{"error":null,"code":5}', 'data: {"error":{"error":null,"code":5}}\n\n'],
  ['{"error":""}', 'data: {"error":{"error":""}}\n\n'],
  ['{"error":{}}', 'data: {"error":{"error":{}}}\n\n'],
  ['{"error":[]}', 'data: {"error":{"error":[]}}\n\n'],
  ['{}', undefined],
  ['{"detail":[1]}', 'data: {"error":{"detail":[1]}}\n\n'],
  ['{"__proto__":{"error":1}}', 'data: {"error":{"__proto__":{"error":1}}}\n\n'],
  ['', undefined],
  ['null', undefined],
  ['[{"error":1}]', undefined],
  ['{"error":1', undefined],
  ['{"error":1}\n\ndata: [DONE]', undefined],
  ['['.repeat(10_000), undefined],
  [`{"error":"${'x'.repeat(17_000)}"}`, undefined],
])('the error %s of a replica as an event', (body, event) => {
  const asker = { requestId: 'id', isAnthropic: false, hasOrigin: false };
  const bytes = new Uint8Array(new SharedArrayBuffer(body.length));
  bytes.set(Buffer.from(body));
  const built = replicaErrorEvent(bytes, asker);
  expect(built === undefined ? undefined : Buffer.from(built).toString()).toBe(event);
});

test.each([
  ['{"type":"error","error":{"type":"t"}}', '{"type":"error","error":{"type":"t"}}'],
  ['{"error":{"message":"no","code":1}}', '{"type":"error","error":{"message":"no","code":1}}'],
  ['{"type":"error","error":"no"}', '{"type":"error","error":{"type":"error","error":"no"}}'],
  ['{"type":"error","error":null}', '{"type":"error","error":{"type":"error","error":null}}'],
  ['{"detail":"no"}', '{"type":"error","error":{"detail":"no"}}'],
])('the error %s of a replica as an event of the Messages API', (body, data) => {
  const asker = { requestId: 'id', isAnthropic: true, hasOrigin: false };
  const event = Buffer.from(replicaErrorEvent(Buffer.from(body), asker)!).toString();
  expect(event).toBe(`event: error\ndata: ${data}\n\n`);
});

test('what is no UTF-8 is no error of a replica', () => {
  const asker = { requestId: 'id', isAnthropic: false, hasOrigin: false };
  expect(replicaErrorEvent(Buffer.from('{"error":"\xff"}', 'latin1'), asker)).toBeUndefined();
});
