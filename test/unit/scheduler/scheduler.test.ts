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

test('requests are taken however long the rest of a turn takes', () => {
  const size = { acceptors: 1, forwarders: 1, slots: 8 };
  const memory = createMemory({ ...size, arenaBytes: 65_536, responseRingBytes: 65_536 });
  const members = new Membership(memory);
  const spec = {
    ...{ name: 'r', url: 'http://r:1', api_key: '', weight: 1, max_in_flight: 8 },
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
  for (let slot = 0; slot < 3; slot++) {
    const lease = slots.claim(slot);
    slots.writeTime(slot, slots.at.arrivedUs, nowUs());
    slots.transition(slot, lease, SlotState.reading, SlotState.queued);
    expect(requests.push(RequestKind.arrive, slot, lease)).toBe(true);
  }
  // A thread that is taken off its processor between any two looks at the clock.
  let ms = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => ++ms);
  let beats = 0;
  scheduler.run(() => ++beats > 3);
  for (let slot = 0; slot < 3; slot++) expect(slots.state(slot)).toBe(SlotState.dispatched);
});
