/** The real ingest of an acceptor, without its thread; the exchange only notes what it is told. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AcceptorState, createAcceptorState } from '../../../src/acceptor/acceptor-state.ts';
import { EdgeHead } from '../../../src/acceptor/edge-head.ts';
import { Ingest } from '../../../src/acceptor/ingest.ts';
import { Closing, type Exchange } from '../../../src/acceptor/listener.ts';
import { OwnAnswers } from '../../../src/acceptor/own-answers.ts';
import { Settlement } from '../../../src/acceptor/settlement.ts';
import { StoredResponseRequests } from '../../../src/acceptor/stored-responses.ts';
import { GatewayViews } from '../../../src/gateway/views.ts';
import { DrainStage } from '../../../src/shm/control.layout.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import { noKeys } from '../../support/no-keys.ts';

let state: AcceptorState;
let ingest: Ingest;
let views: GatewayViews;
let refused: number[];

beforeEach(() => {
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 8 },
    ...{ arenaBytes: 1024 * 1024, responseRingBytes: 64 * 1024 },
  });
  state = createAcceptorState({
    ...{ thread: 'acceptor', index: 0, memory, metrics: createMetricsRegion(defaultMetricDims) },
    ...{ log: { level: 'silent', sample: 0, pretty: false }, engine: 'node', tls: null },
    ...{ host: '127.0.0.1', port: 0, maxBody: 65_536, maxConnections: 8, streamWindow: 65_536 },
    usage: null,
    keys: noKeys,
    keepAlive: 0,
    ...{
      models: [{ name: 'm', aliases: [], policy: 'random', sessionAffinity: true }],
      replicas: [],
    },
  });
  const owner = { body: () => {}, writable: () => {}, gone: () => {} };
  const stored = new StoredResponseRequests(state);
  const settlement = new Settlement(state, stored);
  ingest = new Ingest(state, settlement, owner, new OwnAnswers(state, settlement), stored);
  views = new GatewayViews(memory);
  refused = [];
});

afterEach(() => state.log.close(100));

function openChat(): boolean {
  const head = new EdgeHead();
  head.reset('POST', '/v1/chat/completions');
  head.add('host', 'h');
  head.add('content-length', '10');
  const exchange = {
    closing: Closing.keep,
    answerAndClose: (status: number) => refused.push(status),
  };
  return ingest.open(head, exchange as unknown as Exchange) !== undefined;
}

const setStage = (stage: DrainStage): number =>
  Atomics.store(state.control.words, state.control.draining, stage);

test('a drain that begins just before a slot is claimed loses nobody', () => {
  const { pool } = state;
  const take = pool.take.bind(pool);
  let seenByDrain = -1;
  pool.take = () => {
    setStage(DrainStage.refusing);
    seenByDrain = views.slotsInUse(); // 0: from here on the gateway closes
    return take();
  };
  expect(openChat()).toBe(false);
  expect(seenByDrain).toBe(0);
  expect(refused).toEqual([503]);
  expect(views.slotsInUse()).toBe(0);
});

test('one that begins just after finds the request in the table', () => {
  expect(openChat()).toBe(true);
  setStage(DrainStage.refusing);
  expect(views.slotsInUse()).toBe(1);
  expect(refused).toEqual([]);
  expect(openChat()).toBe(false);
  expect(refused).toEqual([503]);
  expect(views.slotsInUse()).toBe(1);
});
