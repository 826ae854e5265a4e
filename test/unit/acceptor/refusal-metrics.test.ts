import { describe, expect, test } from 'vitest';
import type { AcceptorState } from '../../../src/acceptor/acceptor-state.ts';
import type { Holder } from '../../../src/acceptor/key-ring.ts';
import { countAllowed, countRefusal } from '../../../src/acceptor/refusal-metrics.ts';
import { type ErrorEntry, errorList, errors } from '../../../src/errors/catalogue.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import { metrics } from '../../../src/telemetry/catalogue.ts';
import { defaultMetricDims as dims, fixedLabelValues } from '../../../src/telemetry/labels.ts';
import type { CounterMetric } from '../../../src/telemetry/metric-kinds.ts';

const holderOf = (limits: Partial<Holder> = {}) =>
  ({ series: 7, limitRow: -1, budgetRow: -1, modelRows: new Map(), ...limits }) as Holder;

/** What `count` adds, by the values of the labels. */
function counted(count: (state: AcceptorState) => void): Record<string, number> {
  const region = createMetricsRegion(dims);
  count({ metrics: new MetricsWriter(region, dims) } as AcceptorState);
  const snapshot = new MetricsReader(dims, [region]).snapshot();
  const found: Record<string, number> = {};
  const read = (metric: CounterMetric, nameOf: (index: number) => string): void => {
    for (let i = 0; i < snapshot.seriesCount(metric); i++) {
      const value = snapshot.counter(metric, i);
      if (value > 0) found[nameOf(i)] = value;
    }
  };
  const { shed_reason: reasons, dimension, limit_result: results } = fixedLabelValues;
  read(metrics.shed, (i) => {
    return `shed ${Math.floor(i / reasons.length)} ${reasons[i % reasons.length]}`;
  });
  read(metrics.limitDecisions, (i) => {
    const pair = Math.floor(i / results.length);
    const tenant = Math.floor(pair / dimension.length);
    return `${results[i % results.length]} ${tenant} ${dimension[pair % dimension.length]}`;
  });
  return found;
}

describe('a refusal', () => {
  const refused = (entry: ErrorEntry, model: number, holder?: Holder) =>
    counted((state) => countRefusal(state, holder, model, entry));

  test('for want of room is counted by its reason, every other error is not', () => {
    const shed = Object.fromEntries(
      errorList.flatMap((entry) => {
        const [name] = Object.keys(refused(entry, 3));
        return name === undefined ? [] : [[entry.name, name]];
      }),
    );
    expect(shed).toEqual({
      QUEUE_FULL: 'shed 3 queue_full',
      QUEUE_TIMEOUT: 'shed 3 queue_timeout',
      SHED: 'shed 3 priority',
      DEADLINE_TOO_SOON: 'shed 3 deadline',
      ARENA_FULL: 'shed 3 memory',
      OVERLOADED: 'shed 3 memory',
      SLOTS_FULL: 'shed 3 slots',
      RING_FULL: 'shed 3 ring',
      REPLICA_LIMIT: 'shed 3 replica_limit',
    });
    expect(refused(errors.OVERLOADED, -1)).toEqual({ [`shed ${dims.models} memory`]: 1 });
  });

  test('for a limit is counted by what was used up', () => {
    const limited = Object.fromEntries(
      errorList.flatMap((entry) => {
        const names = Object.keys(refused(entry, 3, holderOf()));
        return names.filter((name) => name.startsWith('refused')).map((name) => [entry.name, name]);
      }),
    );
    expect(limited).toEqual({
      REQUEST_LIMIT: 'refused 7 requests',
      TOKEN_LIMIT: 'refused 7 tokens',
      CONCURRENCY_LIMIT: 'refused 7 concurrency',
      BUDGET_SPENT: 'refused 7 budget',
      LIMITS_UNKNOWN: 'refused 7 store',
    });
    expect(refused(errors.REQUEST_LIMIT, 3)).toEqual({});
  });
});

test('what the scheduler got is allowed, unless a limit ended it or there is none', () => {
  const allowed = (holder: Holder | undefined, failure?: ErrorEntry) =>
    counted((state) => countAllowed(state, holder, 3, failure));
  const once = { 'allowed 7 all': 1 };
  expect(allowed(holderOf({ limitRow: 0 }))).toEqual(once);
  expect(allowed(holderOf({ budgetRow: 0 }))).toEqual(once);
  expect(allowed(holderOf({ modelRows: new Map([[3, 0]]) }))).toEqual(once);
  expect(allowed(holderOf({ limitRow: 0 }), errors.QUEUE_FULL)).toEqual(once);
  expect(allowed(holderOf({ limitRow: 0 }), errors.TOKEN_LIMIT)).toEqual({});
  expect(allowed(holderOf({ modelRows: new Map([[4, 0]]) }))).toEqual({});
  expect(allowed(holderOf())).toEqual({});
  expect(allowed(undefined)).toEqual({});
});
