/** Requests that go on to another model. */
import { expect, test } from 'vitest';
import type { BrainConfig, ModelRules } from '../../../src/dispatch/decisions.ts';
import { Ended, RetryRule } from '../../../src/dispatch/decisions.ts';
import { errors } from '../../../src/errors/catalogue.ts';
import { GoOn } from '../../../src/lib/go-on.ts';
import { BrainHarness, modelsWith } from '../../support/brain-harness.ts';

const [a, b, c] = [0, 1, 2];
const to = (...models: number[]): ModelRules['fallbacks'] =>
  models.map((model) => ({ model, adapter: 0 }));

/** Models a, b and c over a replica each, of its row; `of` adds to the rules of a, `config` to those of all. */
function chain(of: Partial<ModelRules>, config: Partial<BrainConfig> = {}, facts = {}) {
  const [first, second, third] = modelsWith(...Array(3).fill('least_in_flight'));
  const models = [{ ...first!, ...of }, second!, third!];
  const harness = new BrainHarness({ models, ...config });
  for (const row of [a, b, c]) harness.replica(row, { model: row, ...facts });
  return harness;
}

const whyOf = ({ fallbacks }: BrainHarness): string[] =>
  fallbacks.map(({ from, to: model, reason }) => `${'abc'[from]}${'abc'[model]} ${reason}`);
const rowsOf = ({ dispatches }: BrainHarness): number[] => dispatches.map(({ replica }) => replica);

test('a request that failed everywhere goes down the list, each model with its own attempts', () => {
  const harness = chain({ fallbacks: to(b, c) });
  harness.arrive(0);
  harness.fail(0);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: b });
  harness.fail(0, RetryRule.anywhere);
  harness.fail(0, RetryRule.anywhere);
  harness.fail(0, RetryRule.anywhere); // the third attempt of b
  expect(rowsOf(harness)).toEqual([a, b, b, b, c]);
  harness.fail(0, RetryRule.elsewhere, 68);
  expect(harness.refusals).toMatchObject([{ slot: 0, error: 68 }]);
  expect(harness.lastRefusal).toBe('failed');
  expect(whyOf(harness)).toEqual(['ab failed', 'bc failed']);
});

test('without replicas, with busy ones and with a full queue it goes on before any attempt', () => {
  const harness = chain({ fallbacks: to(b) }, { queueMax: 1 }, { maxInFlight: 1 });
  harness.replica(a, { healthy: false });
  harness.arrive(0);
  expect(harness.running.get(0)).toEqual({ attempt: 1, replica: b });
  harness.finish(0);
  harness.replica(a, { healthy: true });
  harness.arrive(1);
  harness.busy(1, 10_000);
  expect(harness.running.get(1)).toEqual({ attempt: 2, replica: b });
  harness.finish(1);
  harness.arrive(2); // the pause of a is long
  expect(harness.running.get(2)).toEqual({ attempt: 1, replica: b });
  harness.finish(2);
  harness.advance(10_000);
  for (const slot of [3, 4, 5]) harness.arrive(slot); // runs, waits, finds the queue full
  expect(harness.running.get(5)).toEqual({ attempt: 1, replica: b });
  expect(harness.brain.queued(a)).toBe(1);
  expect(whyOf(harness)).toEqual(['ab noReplica', 'ab busy', 'ab busy', 'ab queueFull']);
  expect(harness.refusals).toEqual([]);
});

test('who waited too long goes on, and waits no second time', () => {
  const harness = chain({ fallbacks: to(b) }, { queueTimeoutMs: 1000 }, { maxInFlight: 1 });
  for (const slot of [0, 1, 2]) harness.arrive(slot);
  harness.advance(1000);
  expect(harness.running.get(1)).toEqual({ attempt: 1, replica: b });
  expect(whyOf(harness)).toEqual(['ab queueTimeout', 'ab queueTimeout']);
  harness.advance(1); // the other found b full
  expect(harness.refusals).toMatchObject([{ slot: 2 }]);
  expect(harness.lastRefusal).toBe('queueWaitOver');
});

test('a prompt that is too long has a list of its own', () => {
  const harness = chain({ fallbacks: to(b), contextFallbacks: to(c) });
  const tooLong = errors.CONTEXT_OVERFLOW.number;
  harness.arrive(0);
  harness.fail(0, RetryRule.otherModel, tooLong);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: c });
  harness.fail(0); // as any request, from there
  expect(harness.running.get(0)).toEqual({ attempt: 3, replica: b });
  harness.fail(0, RetryRule.otherModel, tooLong);
  expect(harness.lastRefusal).toBe('noReplica'); // c would have done
  expect(whyOf(harness)).toEqual(['ac context', 'cb failed']);
  // Without a list it is refused for what it is.
  harness.arrive(1, b);
  harness.fail(1, RetryRule.otherModel, tooLong);
  expect(harness.lastRefusal).toBe('tooLong');
});

test('what is too long for a fallback alone goes on, and is no fault of the client in the end', () => {
  const harness = chain({ fallbacks: to(b, c) });
  const tooLong = (slot: number): unknown =>
    harness.fail(slot, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  harness.replica(a, { healthy: false });
  harness.arrive(0);
  tooLong(0);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: c });
  harness.finish(0);
  harness.arrive(1);
  tooLong(1);
  tooLong(1);
  expect(harness.lastRefusal).toBe('noReplica');
  expect(harness.refusals).toMatchObject([{ slot: 1 }]);
  expect(whyOf(harness)).toEqual(['ab noReplica', 'bc context', 'ab noReplica', 'bc context']);
});

test('what is too long for a larger model is too long for the one that was asked', () => {
  const harness = chain({ fallbacks: to(b), contextFallbacks: to(c) });
  harness.replica(a, { healthy: false });
  harness.arrive(0);
  for (const model of [b, c]) {
    expect(harness.running.get(0)?.replica).toBe(model);
    harness.fail(0, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  }
  expect(harness.lastRefusal).toBe('tooLong');
});

test('nobody goes on behind a part of an answer, an error that forbids it, or its deadline', () => {
  const harness = chain({ fallbacks: to(b) });
  harness.arrive(0);
  harness.firstToken(0);
  harness.fail(0, RetryRule.elsewhere, 65, { continues: true });
  harness.arrive(1);
  harness.fail(1, RetryRule.never, 79);
  harness.arrive(2, a, 100);
  harness.nowUs += 100_000;
  harness.fail(2);
  expect(harness.refusals).toHaveLength(3);
  expect(harness.fallbacks).toEqual([]);
  expect(rowsOf(harness)).toEqual([a, a, a]);
});

test('a fallback of a fallback is not asked; a fallback may be an adapter', () => {
  const harness = chain({ fallbacks: [{ model: b, adapter: 2 }] });
  harness.arrive(0);
  harness.fail(0);
  expect(harness.lastRefusal).toBe('noReplica'); // b has not loaded it
  harness.replica(b, { adapters: Int32Array.of(2) });
  harness.arrive(1);
  harness.fail(1);
  expect(harness.running.get(1)).toEqual({ attempt: 2, replica: b });
  harness.arrive(2, b);
  harness.fail(2);
  expect(harness.lastRefusal).toBe('failed');
});

test('a client that leaves on the way is gone, and a stop refuses who is on the way', () => {
  const harness = chain({ fallbacks: to(b) });
  for (const slot of [0, 1]) harness.arrive(slot);
  // Before the next turn of the timers: as in one batch of events.
  const end = { generation: 1, attempt: 1, hedge: false, busy: false, verdict: 2 } as const;
  const more = { retryAfterMs: 0, error: 65, retry: RetryRule.elsewhere, settled: false } as const;
  const usage = { ended: Ended.told, continues: false, promptTokens: -1, completionTokens: -1 };
  for (const slot of [0, 1]) {
    harness.running.delete(slot);
    harness.running.set(slot, { attempt: 1, replica: a });
    harness.brain.release({ slot, ...end, ...more, ...usage }, harness.nowUs);
  }
  expect(harness.brain.nextTimerUs).toBe(0);
  expect(harness.brain.cancel(0, 1, harness.nowUs)).toBe(true);
  expect(harness.lastRefusal).toBe('clientGone');
  harness.brain.stop(harness.nowUs);
  expect(harness.lastRefusal).toBe('stopping');
  harness.check();
  expect(harness.refusals.map(({ slot }) => slot)).toEqual([0, 1]);
  expect(rowsOf(harness)).toEqual([a, a]);
});

test('an arrival that an earlier brain had sent on goes on from there', () => {
  const harness = chain({ fallbacks: to(b, c) });
  harness.replica(b, { healthy: false });
  harness.arrive(0, b, 600_000, { askedModel: a });
  expect(harness.running.get(0)).toEqual({ attempt: 1, replica: c });
  expect(whyOf(harness)).toEqual(['bc noReplica']);
  harness.fail(0);
  expect(harness.lastRefusal).toBe('failed');
});

test('a model that both lists name is asked once for the same prompt', () => {
  const harness = chain({ fallbacks: to(b), contextFallbacks: to(b, c) });
  harness.arrive(0);
  harness.fail(0);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: b });
  harness.fail(0, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  expect(harness.running.get(0)).toEqual({ attempt: 3, replica: c });
  expect(whyOf(harness)).toEqual(['ab failed', 'bc context']);
});

test('who has no time left to wait takes room that those who wait there cannot use', () => {
  const harness = chain({ fallbacks: to(b) }, { queueTimeoutMs: 1000 });
  harness.replica(a, { maxInFlight: 1 });
  harness.replica(3, { model: b, maxInFlight: 1, adapters: Int32Array.of(4) });
  const withAdapter = { adapter: 3 };
  harness.arrive(0);
  harness.arrive(1);
  harness.arrive(2, b, 600_000, withAdapter);
  harness.nowUs += 500_000;
  harness.arrive(3, b, 600_000, withAdapter);
  expect(harness.brain.queued(b)).toBe(1);
  harness.advance(500);
  expect(harness.running.get(1)).toEqual({ attempt: 1, replica: b });
  expect(harness.refusals).toEqual([]);
  // Its wait is told as one, and not as time that the scheduler took.
  expect(harness.dispatches.at(-1)).toMatchObject({ slot: 1, heldUs: 1_000_000 });
});

test('a request goes by the lists that were there when it came', () => {
  const harness = chain({ fallbacks: to(b) });
  const { fallbacks } = harness.brain;
  const setList = (list: ModelRules['fallbacks']): void =>
    fallbacks.setLists([{ fallbacks: list }, {}, {}]);
  harness.arrive(0);
  setList(to(c));
  harness.arrive(1);
  setList(undefined);
  harness.arrive(2);
  for (const slot of [0, 1, 2]) harness.fail(slot, RetryRule.elsewhere, 68);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: b });
  expect(harness.running.get(1)).toEqual({ attempt: 2, replica: c });
  expect(harness.refusals).toMatchObject([{ slot: 2, error: 68 }]);
  harness.brain.assertExact();
});

test('the first list of all comes while requests run, which it is not for', () => {
  const harness = chain({});
  harness.arrive(0);
  harness.brain.fallbacks.setLists([{ fallbacks: to(b) }, {}, {}]);
  harness.arrive(1);
  harness.fail(0, RetryRule.elsewhere, 68);
  harness.fail(1, RetryRule.elsewhere, 68);
  expect(harness.refusals).toMatchObject([{ slot: 0 }]);
  expect(harness.running.get(1)).toEqual({ attempt: 2, replica: b });
  harness.brain.assertExact();
});

test('a reply that is discarded goes on to the larger model, whose lists it has from there on', () => {
  const rules = { cascade: { model: b, adapter: 0 }, fallbacks: to(c), contextFallbacks: to(c) };
  const harness = chain(rules);
  const refused = errors.REPLY_REFUSED.number;
  harness.arrive(0);
  harness.fail(0, RetryRule.refused, refused);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: b });
  // b has no fallback: those of a are not asked.
  harness.fail(0, RetryRule.elsewhere, 68);
  expect(harness.lastRefusal).toBe('failed');
  harness.arrive(1);
  harness.fail(1, RetryRule.unsure, errors.REPLY_UNSURE.number);
  harness.fail(1, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  expect(harness.lastRefusal).toBe('tooLong');
  expect(whyOf(harness)).toEqual(['ab refusal', 'ab lowConfidence']);
});

test('the list of the larger model may name the smaller one, and there it ends', () => {
  const [first, second, third] = modelsWith(...Array(3).fill('least_in_flight'));
  const models = [
    { ...first!, cascade: { model: b, adapter: 0 } },
    { ...second!, cascade: { model: a, adapter: 0 }, fallbacks: to(a, c) },
    third!,
  ];
  const harness = new BrainHarness({ models });
  for (const row of [a, b, c]) harness.replica(row, { model: row });
  harness.arrive(0);
  harness.fail(0, RetryRule.refused, errors.REPLY_REFUSED.number);
  harness.fail(0, RetryRule.elsewhere, 68);
  harness.fail(0, RetryRule.elsewhere, 68);
  harness.fail(0, RetryRule.elsewhere, 68);
  expect(rowsOf(harness)).toEqual([a, b, a, c]);
  expect(harness.lastRefusal).toBe('failed');
  expect(whyOf(harness)).toEqual(['ab refusal', 'ba failed', 'ac failed']);
});

test('a reply is discarded for a larger model alone, and by the model it was asked of', () => {
  const harness = chain({ fallbacks: to(b) });
  const refused = errors.REPLY_REFUSED.number;
  harness.arrive(0); // a has no larger model
  harness.fail(0, RetryRule.refused, refused);
  expect(harness.lastRefusal).toBe('refused');
  const other = chain({ cascade: { model: c, adapter: 0 }, fallbacks: to(b) });
  other.arrive(0);
  other.fail(0); // and b is not the one it came for
  other.fail(0, RetryRule.unsure, errors.REPLY_UNSURE.number);
  expect(other.lastRefusal).toBe('unsure');
  expect(whyOf(other)).toEqual(['ab failed']);
});

test('what an answer may come to is told as the request comes and goes on', () => {
  const harness = chain({
    ...{ cascade: { model: b, adapter: 0 }, fallbacks: to(c), contextFallbacks: to(b) },
  });
  const { larger, longer } = GoOn;
  harness.arrive(0);
  expect(harness.goOn.get(0)).toBe(larger | longer);
  harness.fail(0, RetryRule.refused, errors.REPLY_REFUSED.number);
  expect(harness.goOn.get(0)).toBe(0); // b has nobody
  harness.arrive(1);
  harness.fail(1); // at c, which is not for long prompts
  expect(harness.goOn.get(1)).toBe(longer);
  harness.arrive(2);
  harness.fail(2, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  expect(harness.goOn.get(2)).toBe(0);
  harness.arrive(3, a, 60_000, { pin: a, pinEpoch: 1 });
  expect(harness.goOn.get(3)).toBe(0);
  harness.arrive(4);
  harness.fail(4, RetryRule.again, 65, { continues: true });
  expect(harness.goOn.get(4)).toBe(0);
});

test('a request that was there before the first lists has none, and a prompt too long for it is', () => {
  const harness = chain({});
  harness.arrive(0, b);
  const rules = modelsWith(...Array(3).fill('least_in_flight'));
  const lists = { cascade: { model: c, adapter: 0 }, contextFallbacks: to(c) };
  harness.brain.fallbacks.setLists(rules.map((of, i) => (i === b ? { ...of, ...lists } : of)));
  expect(harness.goOn.get(0)).toBe(undefined);
  harness.arrive(1, b);
  expect(harness.goOn.get(1)).toBe(GoOn.larger | GoOn.longer);
  harness.fail(0, RetryRule.otherModel, errors.CONTEXT_OVERFLOW.number);
  expect(harness.lastRefusal).toBe('tooLong');
});
