import { describe, expect, test } from 'vitest';
import { NONE } from '../../../src/dispatch/candidates.ts';
import { type CachedTokens, FairQueue, outputWeight } from '../../../src/dispatch/fair-queue.ts';
import { Requests } from '../../../src/dispatch/requests.ts';
import { SlotLinks } from '../../../src/dispatch/slot-lists.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? 20_260_202);
console.info(`SEED=${seed}`);

const slots = 512;
const tenants = 8;

class Bench {
  readonly requests = new Requests(slots);
  readonly queue: FairQueue;
  nowUs = 0;
  readonly #free = Array.from({ length: slots }, (_, slot) => slot);

  constructor(cached?: CachedTokens) {
    this.queue = new FairQueue(this.requests, new SlotLinks(slots), tenants, cached);
  }

  wait(tenant: number, priority = 0, adapter = 0): number {
    const slot = this.#free.shift()!;
    this.requests.adapter[slot] = adapter;
    this.requests.tenant[slot] = tenant;
    this.requests.priority[slot] = priority;
    this.requests.waitingSinceUs[slot] = this.nowUs;
    this.queue.push(slot);
    return slot;
  }

  /** Whose place a newcomer would take. */
  placeFor(tenant: number, priority = 0): number {
    const slot = this.#free[0]!;
    this.requests.tenant[slot] = tenant;
    this.requests.priority[slot] = priority;
    return this.queue.placeFor(slot);
  }

  leave(slot: number): void {
    this.queue.remove(slot);
    this.#free.push(slot);
  }

  /** Serves the waiter whose turn it is, for `tokens`. */
  serve(tokens = 0): number {
    const slot = this.queue.next(this.nowUs);
    if (slot === NONE) return NONE;
    this.queue.remove(slot);
    this.#free.push(slot);
    this.queue.charge(this.requests.tenant[slot]!, tokens);
    return slot;
  }
}

test('one tenant of one priority is served in order of arrival, whoever leaves in between', () => {
  const bench = new Bench();
  const waiting = Array.from({ length: 10 }, () => bench.wait(0));
  bench.queue.remove(waiting[0]!);
  bench.queue.remove(waiting[4]!);
  bench.queue.remove(waiting[9]!);
  const served = Array.from({ length: 8 }, () => bench.serve(100));
  expect(served).toEqual([...waiting.slice(1, 4), ...waiting.slice(5, 9), NONE]);
});

describe('bands', () => {
  test('a higher priority goes first, and every band in its order', () => {
    const bench = new Bench();
    const low = bench.wait(0, -20);
    const normal = bench.wait(0, 0);
    const highest = bench.wait(0, 80);
    const high = bench.wait(0, 10);
    const lowest = bench.wait(0, -100);
    const later = bench.wait(0, 90);
    const order = Array.from({ length: 6 }, () => bench.serve());
    expect(order).toEqual([highest, later, high, normal, low, lowest]);
  });

  test('who has waited long enough stands beside higher bands and is not starved', () => {
    const bench = new Bench();
    const patient = bench.wait(0, -100);
    for (let turn = 0; turn < 100; turn++) {
      bench.wait(1, 0);
      bench.nowUs += 200_000;
      if (bench.serve(1) === patient) {
        expect(bench.nowUs).toBeGreaterThanOrEqual(10_000_000);
        expect(bench.nowUs).toBeLessThan(20_000_001);
        return;
      }
    }
    expect.unreachable('the lowest band starved');
  });

  test('a newcomer takes the place of one of the lowest band below its own', () => {
    const bench = new Bench();
    bench.wait(0, -20);
    bench.nowUs = 1;
    const newest = bench.wait(0, -10);
    bench.wait(1, -20);
    bench.wait(2, 0);
    expect(bench.placeFor(0, -20)).toBe(NONE);
    expect(bench.placeFor(3, 0)).toBe(newest);
    expect(bench.placeFor(3, 50)).toBe(newest);
  });
});

describe('room of a full queue', () => {
  test('the tenant with the most waiters of the band gives up its newest, of whatever adapter', () => {
    const bench = new Bench();
    for (let i = 0; i < 4; i++) {
      bench.nowUs++;
      bench.wait(0, 0, i % 2);
    }
    bench.nowUs++;
    const newest = bench.wait(0, 0, 1);
    bench.nowUs++;
    bench.wait(1);
    bench.wait(2, 60);
    expect(bench.placeFor(1)).toBe(newest);
    expect(bench.placeFor(3)).toBe(newest);
    expect(bench.placeFor(0)).toBe(NONE); // its own waiters are not worth less than its newcomer
    expect(bench.placeFor(3, 60)).toBe(newest); // who is higher takes it from who is lower
    bench.queue.remove(newest);
    expect(bench.placeFor(3)).not.toBe(newest);
  });

  test('who would then be ahead itself gets no place, so places are never swapped to and fro', () => {
    const bench = new Bench();
    bench.wait(0);
    bench.wait(0);
    bench.wait(1);
    expect(bench.placeFor(1)).toBe(NONE);
    expect(bench.placeFor(2)).not.toBe(NONE);
  });

  test('floods of any rates end with the same room for each that has enough to fill it', () => {
    const bench = new Bench();
    const random = createPrng(seed);
    const room = 60;
    const counts = new Array<number>(4).fill(0);
    for (let i = 0; i < 5000; i++) {
      const tenant = [0, 0, 0, 0, 0, 0, 1, 1, 2, 3][random.below(10)]!;
      if (bench.queue.length === room) {
        const victim = bench.placeFor(tenant);
        if (victim === NONE) continue;
        counts[bench.requests.tenant[victim]!]!--;
        bench.leave(victim);
      }
      bench.wait(tenant);
      counts[tenant]!++;
      bench.nowUs++;
    }
    expect(counts).toEqual([15, 15, 15, 15]);
  });
});

describe('fairness between tenants', () => {
  test('tenants that wait get the same service, whatever the size of their requests', () => {
    const bench = new Bench();
    const random = createPrng(seed);
    const service = [0, 0, 0];
    const sizes = [100, 1000, 4000];
    for (let i = 0; i < 120; i++) bench.wait(i % 3);
    for (let turn = 0; turn < 6000; turn++) {
      const tenant = bench.requests.tenant[bench.queue.next(0)]!;
      const size = sizes[tenant]! - random.below(90);
      bench.serve(size);
      bench.wait(tenant); // each always has some that wait
      service[tenant] = service[tenant]! + size;
    }
    expect(Math.max(...service) - Math.min(...service)).toBeLessThanOrEqual(2 * 4000);
  });

  test('idle time is no credit: who comes back is not owed the past', () => {
    const bench = new Bench();
    for (let i = 0; i < 100; i++) {
      bench.wait(0);
      bench.serve(1000);
    }
    for (let i = 0; i < 20; i++) {
      bench.wait(0);
      bench.wait(1);
    }
    const first = Array.from({ length: 10 }, () => bench.requests.tenant[bench.serve(1000)]!);
    expect(first.filter((tenant) => tenant === 1).length).toBeLessThanOrEqual(6);
  });

  test('what is used while nobody waits is no debt', () => {
    const bench = new Bench();
    for (let i = 0; i < 500; i++) bench.queue.charge(0, 1000);
    bench.queue.charge(1, 1000);
    for (let i = 0; i < 20; i++) {
      bench.wait(1);
      bench.wait(0);
    }
    const first = Array.from({ length: 10 }, () => bench.requests.tenant[bench.serve(1000)]!);
    const given = first.filter((tenant) => tenant === 0).length;
    expect(given).toBeGreaterThanOrEqual(4);
    expect(given).toBeLessThanOrEqual(6);
  });

  test('what was charged too much is given back', () => {
    const bench = new Bench();
    bench.queue.charge(0, 1000 * outputWeight);
    bench.queue.correct(0, -900 * outputWeight);
    bench.queue.charge(1, 500);
    const cheap = bench.wait(0);
    bench.wait(1);
    expect(bench.serve()).toBe(cheap);
  });
});

describe('caches', () => {
  /** Tokens of each slot that are cached; what the queue asked for, in order. */
  const cached = new Map<number, number>();
  const warm = (): Bench => {
    cached.clear();
    return new Bench((slot) => cached.get(slot) ?? 0);
  };

  test('within the quantum the head with most in the caches goes first', () => {
    const bench = warm();
    const cold = bench.wait(0);
    const warmer = bench.wait(1);
    const warmest = bench.wait(2);
    cached.set(warmer, 500).set(warmest, 6000);
    expect([bench.serve(100), bench.serve(100), bench.serve(100)]).toEqual([warmest, warmer, cold]);
  });

  test('a tenant is served in its order, whatever its caches', () => {
    const bench = warm();
    const first = bench.wait(0);
    const second = bench.wait(0);
    const other = bench.wait(0, 0, 3); // of another adapter
    bench.wait(1);
    cached.set(second, 6000).set(other, 6000);
    expect(bench.serve(100)).toBe(first);
  });

  test('the difference of service stays within the largest requests and the quantum', () => {
    const bench = warm();
    const service = [0, 0];
    for (let i = 0; i < 4; i++) bench.wait(i % 2);
    for (let turn = 0; turn < 300; turn++) {
      const slot = bench.serve(3000);
      const tenant = bench.requests.tenant[slot]!;
      cached.delete(slot);
      const next = bench.wait(tenant);
      if (tenant === 0) cached.set(next, 6000); // the first tenant is always the warm one
      service[tenant] = service[tenant]! + 3000;
      expect(service[0]! - service[1]!).toBeLessThanOrEqual(16_384 + 2 * 3000);
    }
    expect(service[0]! - service[1]!).toBeGreaterThan(10_000);
    expect(service[1]).toBeGreaterThan(300_000);
  });

  test('a band of lower priority is not served for its caches', () => {
    const bench = warm();
    const low = bench.wait(0, -20);
    const normal = bench.wait(1, 0);
    cached.set(low, 6000);
    expect(bench.serve()).toBe(normal);
  });
});

describe('adapters', () => {
  test('a tenant is served in order of arrival over its adapters', () => {
    const bench = new Bench();
    const waiting = [0, 2, 1, 2, 0, 1].map((adapter) => {
      bench.nowUs++;
      return bench.wait(0, 0, adapter);
    });
    expect(waiting.map(() => bench.serve(100))).toEqual(waiting);
  });

  test('who is passed keeps its place, and nobody of its adapter goes before it', () => {
    const bench = new Bench();
    const waiting = [2, 0, 2, 1].map((adapter) => {
      bench.nowUs++;
      return bench.wait(0, 0, adapter);
    });
    const next = (...passed: number[]): number => bench.queue.next(bench.nowUs, new Set(passed));
    expect(next()).toBe(waiting[0]);
    expect(next(2)).toBe(waiting[1]);
    expect(next(2, 0)).toBe(waiting[3]);
    expect(next(2, 0, 1)).toBe(NONE);
    bench.queue.remove(waiting[0]!);
    expect(next()).toBe(waiting[1]);
    expect(next(0, 1)).toBe(waiting[2]);
  });

  test('the service of a tenant is one, whichever adapters it asks for', () => {
    const bench = new Bench();
    const served = [0, 0];
    for (let i = 0; i < 60; i++) {
      bench.wait(0, 0, i % 3);
      bench.wait(1, 0, 0);
    }
    for (let turn = 0; turn < 40; turn++) {
      const tenant = bench.requests.tenant[bench.serve(100)]!;
      served[tenant] = served[tenant]! + 1;
    }
    expect(served).toEqual([20, 20]);
  });
});
