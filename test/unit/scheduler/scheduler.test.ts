/** The scheduler in the thread of the test, with a clock of the test. */
import { afterEach, expect, test, vi } from 'vitest';
import { Membership } from '../../../src/gateway/membership.ts';
import { nowUs } from '../../../src/lib/clock.ts';
import { Scheduler } from '../../../src/scheduler/scheduler.ts';
import { createMemory, requestRingSize } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { RequestKind } from '../../../src/shm/request-ring.layout.ts';
import { RequestRingProducer } from '../../../src/shm/request-ring.ts';
import { SlotState } from '../../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../../src/shm/request-slots.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import { breakerRules } from '../../support/brain-harness.ts';

afterEach(() => vi.restoreAllMocks());

/** A scheduler over one replica of that many places at a time. */
function rig(maxInFlight: number) {
  const size = { acceptors: 1, forwarders: 1, slots: 8 };
  const memory = createMemory({ ...size, arenaBytes: 65_536, responseRingBytes: 65_536 });
  const members = new Membership(memory);
  const spec = {
    ...{ name: 'r', url: 'http://r:1', api_key: '', weight: 1, max_in_flight: maxInFlight },
    ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: [] },
  };
  const member = members.add(spec, 0)!;
  members.activate(member);
  members.setHealthy(member, true, '');
  const scheduler = new Scheduler({
    ...{ thread: 'scheduler', memory, metrics: createMetricsRegion(defaultMetricDims), seed: 1 },
    ...{ log: { level: 'silent', sample: 0, pretty: false } },
    ...{ models: [{ name: 'm', aliases: [], policy: 'random', sessionAffinity: true }] },
    ...{
      holdTokens: Number.POSITIVE_INFINITY,
      queueMax: 8,
      queueTimeout: 600_000,
      totalTimeout: 600_000,
    },
    retry: { maxAttempts: 1, budget: 0, budgetMin: 0 },
    hedge: { automatic: false, budget: 0 },
    ...{ breaker: breakerRules, slowStartUs: 0, sharedLimits: null },
  });
  const slots = new RequestSlots(memory.slots, size.slots);
  const requests = new RequestRingProducer(memory.requestRing, requestRingSize(memory.size), 0);
  /** The request comes, pinned to the replica of that row, or to none. */
  const arrive = (slot: number, pin?: number): void => {
    const lease = slots.claim(slot);
    if (pin !== undefined) slots.words[slots.row(slot) + slots.at.pin] = pin + 1;
    if (pin !== undefined) slots.words[slots.row(slot) + slots.at.pinEpoch] = member.epoch;
    slots.writeTime(slot, slots.at.arrivedUs, nowUs());
    slots.writeTime(slot, slots.at.publishedUs, nowUs());
    slots.transition(slot, lease, SlotState.reading, SlotState.queued);
    expect(requests.push(RequestKind.arrive, slot, lease)).toBe(true);
  };
  const turns = (count: number): void => {
    let beats = 0;
    scheduler.run(() => ++beats > count);
  };
  return { members, spec, member, slots, arrive, turns };
}

test('requests are taken however long the rest of a turn takes', () => {
  const { slots, arrive, turns } = rig(8);
  for (let slot = 0; slot < 3; slot++) arrive(slot);
  // A thread that is taken off its processor between any two looks at the clock.
  let ms = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => ++ms);
  turns(3);
  for (let slot = 0; slot < 3; slot++) expect(slots.state(slot)).toBe(SlotState.dispatched);
});

test('the row of a request says where its replica is by now', () => {
  const { members, spec, member, slots, arrive, turns } = rig(1);
  for (const slot of [0, 1]) arrive(slot, member.row);
  turns(2);
  expect([0, 1].map((slot) => slots.state(slot))).toEqual([SlotState.dispatched, SlotState.queued]);
  members.giveUpName(member);
  const moved = members.add(spec, 0)!;
  members.activate(moved);
  turns(2);
  members.leave(member);
  turns(2);
  const { words, at } = slots;
  const row = slots.row(1);
  expect([words[row + at.pin], words[row + at.pinEpoch]]).toEqual([moved.row + 1, moved.epoch]);
  expect(slots.state(1)).toBe(SlotState.queued); // it is not up yet
});
