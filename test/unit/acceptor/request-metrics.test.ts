/** What a request that is over leaves in the histograms, by model and by tenant. */
import { expect, test } from 'vitest';
import type { AcceptorState } from '../../../src/acceptor/acceptor-state.ts';
import type { Holder } from '../../../src/acceptor/key-ring.ts';
import type { Request, RequestFacts } from '../../../src/acceptor/request.ts';
import { countOutcome, countRequest } from '../../../src/acceptor/request-metrics.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import { SlotState } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';
import { metrics } from '../../../src/telemetry/catalogue.ts';
import { defaultMetricDims as dims } from '../../../src/telemetry/labels.ts';
import type { HistogramMetric } from '../../../src/telemetry/metric-kinds.ts';

const slot = 1;
const model = 3;
const arrivedUs = 5_000_000;
const billed = { input: null, output: null, cached: null, estimated: false };

/** Observations and their sum in seconds, by index of the series. */
type Observed = Record<number, [count: number, seconds: number]>;

function scene() {
  const region = createMetricsRegion(dims);
  const slots = new RequestSlots(createRequestSlots(4), 4);
  const counters = new MetricsWriter(region, dims);
  const state = { metrics: counters, slots, start: {} } as AcceptorState;
  const lease = slots.claim(slot);
  const factsOf = (series?: number): RequestFacts => {
    const holder = series === undefined ? undefined : ({ series } as Holder);
    return { arrivedUs, holder, route: undefined } as RequestFacts;
  };
  const seen = (metric: HistogramMetric): Observed => {
    const snapshot = new MetricsReader(dims, [region]).snapshot();
    const found: Observed = {};
    for (let i = 0; i < snapshot.seriesCount(metric); i++) {
      const count = snapshot.buckets(metric, i).reduce((a, b) => a + b);
      if (count > 0) found[i] = [count, snapshot.sumSeconds(metric, i)];
    }
    return found;
  };
  return {
    durations: (by: 'model' | 'tenant') =>
      seen(by === 'model' ? metrics.requestDuration : metrics.tenantRequestDuration),
    firstTokens: () => seen(metrics.tenantFirstToken),
    ask: (series: number | undefined, status: number, ms: number) =>
      countRequest(state, factsOf(series), model, status, ms),
    attempt: () => {
      slots.transition(slot, lease, SlotState.reading, SlotState.queued);
      slots.startAttempt(slot, lease);
    },
    firstTokenAt: (us: number) => slots.writeTime(slot, slots.at.firstTokenUs, us),
    end: (series: number | undefined, isWell = true) => {
      const request = { slot, facts: factsOf(series), model, isEventStream: true } as Request;
      countOutcome(state, request, billed, isWell, 200, 900);
    },
  };
}

test('the duration of a request is its tenant’s, whatever the answer, and of no tenant without one', () => {
  const { ask, durations } = scene();
  ask(7, 200, 400);
  ask(7, 429, 2);
  ask(dims.tenants, 200, 50);
  ask(undefined, 200, 10);
  expect(durations('tenant')).toEqual({ 7: [2, 0.402], [dims.tenants]: [1, 0.05] });
  expect(durations('model')).toEqual({ [model]: [4, 0.462] });
});

test('a stream’s first token is its tenant’s, also where the stream broke', () => {
  const { attempt, end, firstTokenAt, firstTokens } = scene();
  attempt();
  firstTokenAt(arrivedUs + 250_000);
  end(undefined);
  expect(firstTokens()).toEqual({});
  end(7);
  end(7, false);
  end(dims.tenants);
  expect(firstTokens()).toEqual({ 7: [2, 0.5], [dims.tenants]: [1, 0.25] });
});

test('an answer without a token has no time to the first one', () => {
  const { attempt, end, firstTokenAt, firstTokens } = scene();
  attempt();
  firstTokenAt(0);
  end(7);
  expect(firstTokens()).toEqual({});
});

test('a request that no replica was given leaves alone what its row has of another', () => {
  const { end, firstTokenAt, firstTokens } = scene();
  firstTokenAt(arrivedUs + 250_000);
  end(7);
  expect(firstTokens()).toEqual({});
});
