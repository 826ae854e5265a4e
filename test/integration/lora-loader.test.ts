/** The loader of adapters over a simulated engine, without the threads of a gateway. */
import { expect, test } from 'vitest';
import { configFromObject } from '../../src/config/load.ts';
import { LoraLoader } from '../../src/gateway/lora-loader.ts';
import { type Member, Membership, type ReplicaSpec } from '../../src/gateway/membership.ts';
import { nowUs } from '../../src/lib/clock.ts';
import { createMemory } from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsWriter } from '../../src/shm/metrics.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../src/shm/request-slots.ts';
import { defaultMetricDims } from '../../src/telemetry/labels.ts';
import { replicaInProcess } from '../support/replica.ts';

test('a replica that is replaced at its url loads until the new row is fit', async () => {
  const replica = await replicaInProcess({ model: 'm', lora: { max: 2, loadMs: 0 } });
  const lora = { adapters: [{ name: 'sql', path: '/adapters/sql' }] };
  const loaded = configFromObject({
    models: [{ name: 'm', lora, replicas: [{ url: replica.url }] }],
  });
  if (!loaded.ok) throw new Error('the config is right');
  const { config } = loaded;
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 8 },
    ...{ arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 },
  });
  const membership = new Membership(memory, [['sql']], [['sql']]);
  const spec = (max_in_flight: number): ReplicaSpec => ({
    ...{ name: 'r1', url: replica.url, api_key: '', weight: 1, max_in_flight },
    ...{ prefill_us: 1, resident_us: 1, kv_tokens: 0, adapters: [] },
  });
  const add = (maxInFlight: number): Member => {
    const member = membership.add(spec(maxInFlight), 0) as Member;
    membership.activate(member);
    return member;
  };
  const slots = new RequestSlots(memory.slots, 8);
  const { at, words } = slots;
  const lease = slots.claim(0);
  words[slots.row(0) + at.adapter] = 1;
  slots.writeTime(0, at.publishedUs, nowUs());
  slots.transition(0, lease, SlotState.reading, SlotState.queued);
  const loader = new LoraLoader({
    ...{ config, membership, memory },
    logger: { info: () => {}, warn: () => {} },
    metrics: new MetricsWriter(createMetricsRegion(defaultMetricDims), defaultMetricDims),
    queued: () => 1,
  });
  try {
    const old = add(1);
    membership.setHealthy(old, true, '');
    membership.giveUpName(old);
    const next = add(2);
    await loader.start();
    await expect.poll(() => old.loaded).toEqual(['sql']);
    expect(next.loaded).toEqual([]);
    // Once it is fit it lists what its engine has.
    membership.setHealthy(next, true, '');
    await expect.poll(() => next.loaded).toEqual(['sql']);
    const loads = replica.ledger().filter(({ path }) => path === '/v1/load_lora_adapter');
    expect(loads).toHaveLength(1);
  } finally {
    await loader.stop();
    await replica.close();
  }
});
