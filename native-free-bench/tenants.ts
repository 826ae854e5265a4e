/**
 * Question: what do keys and limits cost a request?
 *
 * Included: the check of a key as an acceptor makes it (SHA-256, lookup, comparison in constant time),
 * and what the scheduler does for limits: taking when a request comes, giving back when it is over, of
 * the row of its tenant and of that of its model. Subtract the loop. Baseline in the same run: the
 * SHA-256 of the key alone, without which no key can be known. Others: a request that is refused, and
 * one that has no limits.
 */
import { KeyRing } from '../src/acceptor/key-ring.ts';
import { limitRowsMax } from '../src/config/capacities.ts';
import { Limits } from '../src/dispatch/limits.ts';
import { assert } from '../src/lib/assert.ts';
import { createPrng } from '../src/lib/prng.ts';
import { digestBytes, digestOfKey, sha256Of } from '../src/protocol/api-key.ts';
import { LimitsLayout } from '../src/shm/limits.layout.ts';
import { LimitTable } from '../src/shm/limits.ts';
import { createBench, netFigure } from './harness.ts';

const bench = createBench('tenants', 'What do keys and limits cost a request?');
const keyCount = bench.parameter('keys', { smoke: 100, full: 10_000 });
const tenantCount = bench.parameter('tenants', { smoke: 10, full: 1000 });
const random = createPrng(bench.seed);
/** What is promised of the check of a key. */
const limitNs = 1000;

const keys = Array.from({ length: keyCount }, (_, i) => {
  let hex = '';
  while (hex.length < 64) hex += random.next().toString(16).padStart(8, '0');
  return `sk-${hex}-${i}`;
});
const ring = new KeyRing({
  isRequired: true,
  tenants: Array.from({ length: tenantCount }, (_, i) => ({
    ...{
      name: `t${i}`,
      mayPrioritise: false,
      cascade: '',
      limitRow: i,
      budgetRow: -1,
      modelRows: [],
    },
    ...{ series: 0, logSample: undefined, maxN: 0, maxContext: 0, modelCaps: [] },
  })),
  keys: keys.map((key, i) => ({
    ...{ id: `k${i}`, sha256: sha256Of(key), tenant: i % tenantCount, expiresMs: 0 },
    ...{ isDisabled: false, priority: 0, refs: null },
  })),
});
const headers = keys.map((key) => `Bearer ${key}`);
const strangers = keys.map((key) => `Bearer ${key}x`);
const nowMs = 1;
const scratch = Buffer.alloc(digestBytes);

const loop = bench.measure('loop', keyCount, () => {
  let sum = 0;
  for (const header of headers) sum += header.length;
  return sum;
});
const digest = bench.measure('SHA-256 of a key', keyCount, () => {
  let sum = 0;
  for (const key of keys) {
    digestOfKey(key, scratch);
    sum += scratch[0] as number;
  }
  return sum;
});
const check = (list: readonly string[]) => (): number => {
  let known = 0;
  for (const header of list) if ('keyId' in ring.find(header, '', nowMs)) known++;
  return known;
};
const known = bench.measure('KeyRing.find, a known key', keyCount, check(headers), digest);
const unknown = bench.measure('KeyRing.find, an unknown key', keyCount, check(strangers), digest);

/** Requests that run at one time, each of another tenant. */
const slots = 64;
const rows = new LimitTable(LimitsLayout.create({ row: limitRowsMax }));
for (let row = 0; row < 2 * slots; row++) {
  const { doubles, words, at } = rows;
  const word = rows.word(row);
  for (const [rate, burst] of [
    [at.requestRate, at.requestBurst],
    [at.inputRate, at.inputBurst],
    [at.outputRate, at.outputBurst],
  ] as const) {
    doubles[(word + rate) >> 1] = 1e6;
    doubles[(word + burst) >> 1] = 1e9;
  }
  words[word + at.concurrency] = 1;
}
const limits = new Limits(rows, slots);
let nowUs = 1;
const live = (limitRow: (slot: number) => number, modelRow: (slot: number) => number) => {
  const requests = Array.from({ length: slots }, (_, slot) => {
    return { slot, limitRow: limitRow(slot), limitModelRow: modelRow(slot) };
  });
  return (): number => {
    let admitted = 0;
    for (const request of requests) {
      nowUs += 1000;
      if (limits.admit(request, 100, 500, nowUs)) admitted++;
      limits.began(request.slot);
      limits.used(request.slot, 100, 40);
      limits.close(request.slot, true, nowUs);
    }
    assert(admitted === slots, 'nothing is short');
    return admitted;
  };
};
const none = bench.measure(
  'limits: none',
  slots,
  live(
    () => -1,
    () => -1,
  ),
);
const tenant = bench.measure(
  'limits: taken and given back, tenant',
  slots,
  live(
    (slot) => slot,
    () => -1,
  ),
  none,
);
const both = bench.measure(
  'limits: taken and given back, tenant and model',
  slots,
  live(
    (slot) => slot,
    (slot) => slots + slot,
  ),
  none,
);
const { words, at } = rows;
for (let row = 0; row < slots; row++) words[rows.word(row) + at.running] = 1;
const refused = bench.measure(
  'limits: refused',
  slots,
  () => {
    let admitted = 0;
    for (let slot = 0; slot < slots; slot++) {
      if (limits.admit({ slot, limitRow: slot, limitModelRow: -1 }, 100, 500, nowUs)) admitted++;
    }
    assert(admitted === 0, 'each has one, and may have no more');
    return slots;
  },
  none,
);
for (const item of [known, unknown]) bench.figure(netFigure(item, loop, limitNs));
for (const item of [tenant, both, refused]) bench.figure(netFigure(item, none, limitNs));
bench.finish();
