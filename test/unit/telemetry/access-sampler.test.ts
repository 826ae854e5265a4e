import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { AccessSampler } from '../../../src/telemetry/access-sampler.ts';

const seed = Number(process.env.SEED ?? 17);
const slowMs = 10_000;
const secret = seed;

/** Ids as the edge makes them: one millisecond, a counter, random tails. */
function ids(count: number, kind: 'uuid' | 'counter'): string[] {
  const prng = createPrng(seed);
  const hex = (length: number): string =>
    prng.next().toString(16).padStart(8, '0').slice(0, length);
  return Array.from({ length: count }, (_, i) =>
    kind === 'uuid'
      ? `01932b7e-5f3a-7${hex(3)}-8${hex(3)}-${hex(8)}${hex(4)}`
      : `req-${String(i).padStart(8, '0')}`,
  );
}

test.each(['uuid', 'counter'] as const)(
  'of 10,000 successes with %s ids about 100 are kept',
  (kind) => {
    console.info(`SEED=${seed}`);
    const sampler = new AccessSampler({ rate: 0.01, slowMs, secret });
    const kept = ids(10_000, kind).filter((id) => sampler.keeps(id, 200, false, 100));
    expect(kept.length).toBeGreaterThanOrEqual(70);
    expect(kept.length).toBeLessThanOrEqual(130);
  },
);

test('all errors, failures and slow requests are kept, whatever the rate', () => {
  const sampler = new AccessSampler({ rate: 0, slowMs, secret });
  for (const id of ids(1000, 'uuid')) {
    expect(sampler.keeps(id, 200, false, slowMs - 1)).toBe(false);
    expect(sampler.keeps(id, 400, false, 1)).toBe(true);
    expect(sampler.keeps(id, 503, false, 1)).toBe(true);
    expect(sampler.keeps(id, 200, true, 1)).toBe(true);
    expect(sampler.keeps(id, 200, false, slowMs)).toBe(true);
  }
});

test('two samplers agree on every id, and a higher rate keeps all that a lower one kept', () => {
  const low = new AccessSampler({ rate: 0.01, slowMs, secret });
  const same = new AccessSampler({ rate: 0.01, slowMs, secret });
  const high = new AccessSampler({ rate: 0.2, slowMs, secret });
  const all = new AccessSampler({ rate: 1, slowMs, secret });
  for (const id of ids(10_000, 'uuid')) {
    expect(same.idIsSampled(id)).toBe(low.idIsSampled(id));
    if (low.idIsSampled(id)) expect(high.idIsSampled(id)).toBe(true);
    expect(all.idIsSampled(id)).toBe(true);
  }
});

test('who knows an id that one sampler keeps knows nothing of another', () => {
  const one = new AccessSampler({ rate: 0.1, slowMs, secret });
  const other = new AccessSampler({ rate: 0.1, slowMs, secret: secret + 1 });
  const kept = ids(10_000, 'uuid').filter((id) => one.idIsSampled(id));
  const both = kept.filter((id) => other.idIsSampled(id)).length;
  expect(both / kept.length).toBeGreaterThan(0.05);
  expect(both / kept.length).toBeLessThan(0.15);
});

test('a rate that is no share is refused', () => {
  for (const rate of [-0.1, 1.1, Number.NaN]) {
    expect(() => new AccessSampler({ rate, slowMs, secret })).toThrow();
  }
});

test('a rate of its own takes the place of the general one, for successes alone', () => {
  const sampler = new AccessSampler({ rate: 0.5, slowMs, secret });
  const all = ids(1000, 'uuid');
  expect(all.filter((id) => sampler.keeps(id, 200, false, 1, 0))).toEqual([]);
  expect(all.filter((id) => sampler.keeps(id, 200, false, 1, 1))).toEqual(all);
  expect(all.every((id) => sampler.keeps(id, 404, false, 1, 0))).toBe(true);
  const few = all.filter((id) => sampler.keeps(id, 200, false, 1, 0.1));
  // Whoever takes more takes the same ones and others.
  expect(few.every((id) => sampler.keeps(id, 200, false, 1))).toBe(true);
});
