/** Who of a split serves: by weight, and always the same one for a session. */
import { expect, test } from 'vitest';
import { ModelNames } from '../../../src/acceptor/model-names.ts';
import type { SplitTarget } from '../../../src/config/model-names.ts';
import type { ModelRow } from '../../../src/shm/threads.ts';

const row = (name: string, adapters: readonly string[] = []): ModelRow => ({
  ...{ name, aliases: [`${name}-alias`], policy: 'round_robin', sessionAffinity: true, adapters },
});
const models = [row('a', ['lora']), row('b'), row('c')];
const target = (model: number, weight: number, adapter = 0): SplitTarget => {
  return { model, adapter, weight };
};
const namesOf = (...targets: SplitTarget[]) =>
  new ModelNames(models, [{ name: 'chat', aliases: ['talk'], targets }]);

const refOf = (names: ModelNames, name: string) => {
  const ref = names.byName.get(name);
  if (ref === undefined) throw new Error(`no ${name}`);
  return ref;
};

function counts(names: ModelNames, requests: number, session: (i: number) => string): number[] {
  const served = [0, 0, 0];
  const ref = refOf(names, 'chat');
  for (let i = 0; i < requests; i++) served[names.serving(ref, session(i)).model]! += 1;
  return served;
}

test('requests without a session meet the weights in every stretch of them', () => {
  const names = namesOf(target(0, 95), target(1, 5));
  for (let stretch = 0; stretch < 20; stretch++) {
    const [a = 0, b = 0] = counts(names, 100, () => '');
    expect(a + b).toBe(100);
    expect(Math.abs(b - 5)).toBeLessThanOrEqual(2);
  }
});

test('sessions meet the weights, stay where they are, and move only across a border', () => {
  const before = namesOf(target(0, 60), target(1, 30), target(2, 10));
  const after = namesOf(target(0, 50), target(1, 40), target(2, 10));
  const sessions = Array.from({ length: 20_000 }, (_, i) => `session-${i}`);
  const [a = 0, b = 0, c = 0] = counts(before, sessions.length, (i) => sessions[i]!);
  for (const [count, share] of [
    [a, 0.6],
    [b, 0.3],
    [c, 0.1],
  ] as const) {
    // Five standard deviations of a fair draw.
    const deviation = Math.sqrt(sessions.length * share * (1 - share));
    expect(Math.abs(count - sessions.length * share)).toBeLessThan(5 * deviation);
  }
  let moved = 0;
  const ref = refOf(before, 'chat');
  for (const session of sessions) {
    const was = before.serving(ref, session);
    expect(before.serving(ref, session)).toBe(was);
    const is = after.serving(ref, session);
    if (is.model === was.model) continue;
    moved++;
    expect([was.model, is.model]).toEqual([0, 1]);
  }
  expect(moved / sessions.length).toBeCloseTo(0.1, 1);
});

test('a weight of 0 takes nothing, wherever it stands', () => {
  const names = namesOf(target(2, 0), target(0, 1), target(1, 0));
  expect(counts(names, 1000, () => '')).toEqual([1000, 0, 0]);
  expect(counts(names, 1000, String)).toEqual([1000, 0, 0]);
});

test('models, aliases and adapters stand for themselves; a split may give to an adapter', () => {
  const names = namesOf(target(0, 1, 1));
  expect(names.isSplit(refOf(names, 'talk'))).toBe(true);
  expect(names.serving(refOf(names, 'talk'), 's')).toMatchObject({ model: 0, adapter: 1 });
  for (const [name, model, adapter] of [
    ['a', 0, 0],
    ['b-alias', 1, 0],
    ['lora', 0, 1],
  ] as const) {
    const ref = refOf(names, name);
    expect(names.isSplit(ref)).toBe(false);
    expect(names.serving(ref, 's')).toEqual({ model, adapter });
  }
  expect(names.nameOf(0, 1)).toBe('lora');
  expect(names.nameOf(2, 0)).toBe('c');
  expect(names.nameOf(-1, 0)).toBeUndefined();
});

test('a larger model serves long prompts and who asks for it, where there is one', () => {
  const cascade = { model: 1, adapter: 0, promptBytes: 1000 };
  const byWishAlone = { model: 0, adapter: 0, promptBytes: 0 };
  const names = new ModelNames([
    { ...models[0]!, cascade },
    { ...models[1]!, cascade: byWishAlone },
  ]);
  const [a, b, lora] = ['a', 'b', 'lora'].map((name) => refOf(names, name));
  for (const [ref, bytes, wish, larger] of [
    [a, 999, '', undefined],
    [a, 1000, '', cascade],
    [a, 10, 'large', cascade],
    [a, 5000, 'small', undefined],
    [lora, 5000, 'large', undefined],
    [b, 1e9, '', undefined],
    [b, 0, 'large', byWishAlone],
  ] as const) {
    expect(names.larger(ref!, bytes, wish)).toBe(larger);
  }
});

test('replies of a model with rules for them are judged, those of its adapters are not', () => {
  const onReply = { refusal: true, finishReasons: [], header: '', field: '' };
  const names = new ModelNames([
    { ...models[0]!, cascade: { model: 1, adapter: 0, promptBytes: 0, onReply } },
    { ...models[1]!, cascade: { model: 0, adapter: 0, promptBytes: 0 } },
  ]);
  const judged = ['a', 'b', 'lora'].map((name) => names.isJudged(refOf(names, name)!));
  expect(judged).toEqual([true, false, false]);
});

test('a name has its hash whatever numbers a reload gives', () => {
  const split = (name: string) => ({ name, aliases: [`${name}-too`], targets: [target(0, 1)] });
  const before = new ModelNames(models, [split('x'), split('y')]);
  const after = new ModelNames(models, [split('y'), split('z')]);
  const hash = (names: ModelNames, name: string) => names.hashOf(refOf(names, name));
  for (const name of ['a', 'a-alias', 'lora', 'c', 'y', 'y-too']) {
    expect(hash(after, name), name).toBe(hash(before, name));
    expect(after.named(hash(before, name))).toEqual(refOf(after, name));
  }
  expect(hash(before, 'y-too')).toBe(hash(before, 'y'));
  expect(after.named(hash(before, 'x'))).toBe(undefined);
});

test('a name reaches the fallbacks of the larger model, and an adapter that has answered', () => {
  const cascade = (model: number) => ({ model, adapter: 0, promptBytes: 0 });
  const names = new ModelNames(
    [
      { ...models[0]!, cascade: cascade(1) },
      { ...models[1]!, contextFallbacks: [{ model: 2, adapter: 0 }] },
      models[2]!,
    ],
    [{ name: 'chat', aliases: [], targets: [target(0, 1), target(0, 1, 1)] }],
  );
  expect(names.reaching(refOf(names, 'a'), 2)).toEqual({ model: 2, adapter: 0 });
  expect(names.reaching(refOf(names, 'lora'), 2)).toBe(undefined);
  const chat = refOf(names, 'chat');
  const adapters = [[1], [-1, 1], [0, 1], [], [7]].map(
    (of) => names.reaching(chat, 0, of)?.adapter,
  );
  expect(adapters).toEqual([1, 1, 0, 0, 0]);
});
