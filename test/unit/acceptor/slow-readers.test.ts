/** The real choice of an acceptor among its requests; the exchange notes that it was cut. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AcceptorState, createAcceptorState } from '../../../src/acceptor/acceptor-state.ts';
import type { Exchange } from '../../../src/acceptor/listener.ts';
import { Request, type RequestFacts } from '../../../src/acceptor/request.ts';
import { SlowReaders } from '../../../src/acceptor/slow-readers.ts';
import { OverloadAction, overloadSampleShift } from '../../../src/shm/control.layout.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import { noKeys } from '../../support/no-keys.ts';

let state: AcceptorState;
let slowReaders: SlowReaders;
let sample: number;

beforeEach(() => {
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 8 },
    ...{ arenaBytes: 1024 * 1024, responseRingBytes: 64 * 1024 },
  });
  state = createAcceptorState({
    ...{ thread: 'acceptor', index: 0, memory, metrics: createMetricsRegion(defaultMetricDims) },
    ...{ log: { level: 'silent', sample: 0, pretty: false }, engine: 'node', tls: null },
    ...{ host: '127.0.0.1', port: 0, maxBody: 65_536, maxConnections: 8, streamWindow: 65_536 },
    ...{ models: [], replicas: [], usage: null, keys: noKeys, keepAlive: 0 },
  });
  slowReaders = new SlowReaders(state);
  sample = 0;
});
afterEach(() => state.log.close(100));

/** Takes its first burst and no more. */
class Connection {
  isBlocked = false;
  unconfirmedBytes = 0;
  isCut = false;

  write(_data: Uint8Array, start: number, end: number): number {
    if (this.isBlocked) return 0;
    this.isBlocked = true;
    this.unconfirmedBytes = Math.min(end - start, 10);
    return this.unconfirmedBytes;
  }

  cut(): void {
    this.isCut = true;
    this.isBlocked = false;
  }
}

function reader(bytes: number): { request: Request; connection: Connection } {
  const connection = new Connection();
  const owner = { body: () => {}, writable: () => {}, gone: () => {} };
  const exchange = connection as unknown as Exchange;
  const request = new Request(exchange, {} as RequestFacts, owner);
  request.slot = state.requests.indexOf(undefined);
  state.requests[request.slot] = request;
  request.outbox.send(new Uint8Array(bytes), 0, bytes);
  return { request, connection };
}

/** The main thread has looked once more. */
function look(actions: number): void {
  sample++;
  const word = (sample << overloadSampleShift) | actions;
  Atomics.store(state.control.words, state.control.overload, word);
  slowReaders.look();
}

test('one a sample is cut, the one with the most bytes first', () => {
  const readers = [reader(40_000), reader(60_000), reader(50_000)];
  const cut = (): boolean[] => readers.map(({ connection }) => connection.isCut);
  look(OverloadAction.cutSlowReaders);
  expect(cut(), 'they may have taken something since').toEqual([false, false, false]);
  slowReaders.look();
  expect(cut(), 'the same sample').toEqual([false, false, false]);
  look(OverloadAction.cutSlowReaders);
  expect(cut()).toEqual([false, true, false]);
  slowReaders.look();
  expect(cut()).toEqual([false, true, false]);
  look(OverloadAction.cutSlowReaders);
  expect(cut()).toEqual([false, true, true]);
  expect(readers[1]?.request.cutFor?.code).toBe('slow_reader');
});

test('nobody is cut in other stages', () => {
  const { connection } = reader(40_000);
  for (let i = 0; i < 3; i++) look(OverloadAction.refuseRequests | OverloadAction.keepAliveOff);
  expect(connection.isCut).toBe(false);
});

test('who takes something between two samples, and who is not behind, is left alone', () => {
  const moving = reader(40_000);
  const idle = reader(5);
  idle.connection.isBlocked = false;
  for (let i = 0; i < 5; i++) {
    look(OverloadAction.cutSlowReaders);
    moving.connection.isBlocked = false;
    moving.connection.unconfirmedBytes = 0;
    moving.request.outbox.flush();
  }
  expect([moving.connection.isCut, idle.connection.isCut]).toEqual([false, false]);
});

test('who holds less than half a window is left alone', () => {
  const [small, large] = [reader(32_768), reader(32_769)];
  for (let i = 0; i < 4; i++) look(OverloadAction.cutSlowReaders);
  expect([small.connection.isCut, large.connection.isCut]).toEqual([false, true]);
});
