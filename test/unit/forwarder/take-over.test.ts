/** How a forwarder ends the stream of a predecessor that died around the last bytes of its answer. */
import { afterEach, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import { AttemptRecord } from '../../../src/forwarder/attempt-record.ts';
import { Credit } from '../../../src/forwarder/credit.ts';
import { Notice, Output } from '../../../src/forwarder/output.ts';
import { ResponseKeeper } from '../../../src/forwarder/response-keeper.ts';
import { ResponseWriter } from '../../../src/forwarder/response-writer.ts';
import { EventWriter, type Services } from '../../../src/forwarder/services.ts';
import { takeOver } from '../../../src/forwarder/take-over.ts';
import { type FaultStage, setFaultHook } from '../../../src/lib/fault-point.ts';
import type { Usage } from '../../../src/protocol/completion-observer.ts';
import { ByteRingConsumer, ByteRingProducer, createByteRing } from '../../../src/shm/byte-ring.ts';
import { createMemory, replicaCounts } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsWriter } from '../../../src/shm/metrics.ts';
import { ReplicaProgress } from '../../../src/shm/replica-progress.ts';
import { ReplicaTableLayout } from '../../../src/shm/replica-table.layout.ts';
import { SlotState } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';
import { ResponseKind, readUint32 } from '../../../src/shm/response-records.ts';
import { EventRingLayout, Outcome } from '../../../src/shm/rings.layout.ts';
import { createSpscRing, SpscConsumer, SpscProducer } from '../../../src/shm/spsc-ring.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';

const ringBytes = 4096;
const slot = 3;
const size = {
  ...{ acceptors: 1, forwarders: 1, slots: 8, arenaBytes: 65_536, responseRingBytes: ringBytes },
  responses: 8,
};
const answer = Buffer.from('data: [DONE]\n\n');

afterEach(() => setFaultHook(() => {}));

/** `dies`: the writer of the row of a stream dies there. Returns what acceptor and scheduler are told. */
function endAfter(dies: 'before the bytes' | FaultStage, usage?: Usage): object {
  const slots = new RequestSlots(createRequestSlots(8), 8);
  const { words, at } = slots;
  const row = slots.row(slot);
  const { reading, queued, dispatched, streaming } = SlotState;
  slots.transition(slot, slots.claim(slot), reading, queued);
  const lease = slots.startAttempt(slot, slots.lease(slot));
  slots.transition(slot, lease, dispatched, streaming);
  words[row + at.taken] = lease;
  const region = createByteRing(ringBytes);
  const events = createSpscRing(EventRingLayout, 64);
  const services = (): Services => {
    const credit = new Credit(slots, 1024);
    const ring = new ByteRingProducer(region, ringBytes);
    const told = new SpscProducer(EventRingLayout, events, 64);
    const metrics = new MetricsWriter(createMetricsRegion(defaultMetricDims), defaultMetricDims);
    return {
      slots,
      credit,
      writers: [new ResponseWriter(ring, credit, () => {})],
      metrics,
      events: new EventWriter(told, slots, new Int32Array(1), 0, () => {}),
      limits: { connectUs: 1, firstTokenUs: 1, answerUs: 1, interTokenUs: 1, totalUs: 1 },
      judgeOf: () => undefined,
      spans: undefined,
      progress: new ReplicaProgress(ReplicaTableLayout.create(replicaCounts)),
      responses: new ResponseKeeper(createMemory(size), slots, metrics),
      onMisconfigured: () => {},
    };
  };
  const dead = services();
  const record = new AttemptRecord(dead, slot, 0, 0);
  if (usage !== undefined) record.used(usage);
  const die = (): never => {
    throw new Error('dead');
  };
  setFaultHook((stage) => {
    if (stage === dies) die();
  });
  const owner = {
    completes: (position: number) => {
      record.complete(lease, position);
      if (dies === 'before the bytes') die();
    },
    claimSettlement: () => slots.transition(slot, lease, streaming, SlotState.settled),
    settled: die,
    handedOver: die,
    written: die,
  };
  const output = new Output(owner, slot, lease, row, 0);
  output.push(answer);
  output.notice = Notice.end;
  dead.writers[0]?.enqueue(output);
  expect(() => dead.writers[0]?.flush()).toThrow('dead');
  setFaultHook(() => {});

  const next = services();
  takeOver(next, 0);
  next.writers[0]?.flush();
  const responses = new ByteRingConsumer(region, ringBytes);
  const kinds: number[] = [];
  let error = -1;
  for (; responses.peek(); responses.advance()) {
    kinds.push(responses.kind);
    if (responses.kind === ResponseKind.end) error = readUint32(responses.data, responses.payload);
  }
  const told = new SpscConsumer(EventRingLayout, events, 64);
  const cell = told.peek();
  expect(slots.state(slot)).toBe(SlotState.settled);
  const { outcome, promptTokens, completionTokens } = told.at;
  expect(told.words[cell + outcome]).toBe(Outcome.lost);
  expect([told.words[cell + promptTokens], told.words[cell + completionTokens]]).toEqual([
    usage?.prompt ?? -1,
    usage?.completion ?? -1,
  ]);
  return { kinds, error, row: words[row + at.error], told: told.words[cell + told.at.error] };
}

const [last, end] = [ResponseKind.last, ResponseKind.end];
const lost = errors.FORWARDER_LOST.number;

test.each([
  ['before the bytes', { kinds: [end], error: lost, row: lost, told: lost }],
  ['all-written', { kinds: [last, end], error: 0, row: 0, told: 0 }],
  ['done-before-release', { kinds: [last, end], error: 0, row: 0, told: 0 }],
] as const)('%s', (dies, expected) => {
  expect(endAfter(dies)).toEqual(expected);
  // What the dead one had counted is told with the end.
  expect(endAfter(dies, { prompt: 5, completion: 7, cached: 0 })).toEqual(expected);
});
