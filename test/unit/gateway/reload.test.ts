import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import type { Config, ConfigInput } from '../../../src/config/schema.ts';
import { changedTerms, type NamedReplica, planReload } from '../../../src/gateway/reload.ts';

const url = (port: number): string => `http://127.0.0.1:${port}`;
const a = { name: 'a', url: url(9001) };
const b = { name: 'b', url: url(9002) };
const c = { name: 'c', url: url(9003) };

function config(input: ConfigInput): Config {
  const loaded = configFromObject(input);
  if (!loaded.ok) throw new Error(loaded.problems[0]?.message);
  return loaded.config;
}

const oneModel = (
  replicas: ConfigInput['models'][number]['replicas'],
  more: Omit<ConfigInput, 'models'> = {},
): Config => config({ ...more, models: [{ name: 'm', replicas }] });

const runningOf = ({ models }: Config): NamedReplica[] =>
  models.flatMap(({ replicas }, model) => replicas.map((replica) => ({ model, replica })));

function plan(current: Config, next: Config, running = runningOf(current)) {
  const { restart, add, remove, replace, reweigh } = planReload(current, next, running);
  const names = (list: readonly NamedReplica[]): string[] => list.map((n) => n.replica.name);
  return { restart, add: names(add), remove, replace: names(replace), reweigh: names(reweigh) };
}

const nothing = { restart: [], add: [], remove: [], replace: [], reweigh: [] };

test('the same file changes nothing', () => {
  expect(plan(oneModel([a, b]), oneModel([a, b]))).toEqual(nothing);
});

test('the order of replicas is no change', () => {
  expect(plan(oneModel([a, b]), oneModel([b, a]))).toEqual(nothing);
});

test('a replica comes, one goes, one gets another weight', () => {
  const next = oneModel([{ ...a, weight: 3 }, c]);
  const expected = { ...nothing, add: ['c'], remove: ['b'], reweigh: ['a'] };
  expect(plan(oneModel([a, b]), next)).toEqual(expected);
});

test.each([
  ['address', { ...a, url: url(9009) }],
  ['key', { ...a, api_key: 'k' }],
  ['header of the key', { ...a, api_key_header: 'api-key' }],
  ['header', { ...a, headers: { 'x-a': '1' } }],
  ['limit', { ...a, max_in_flight: 7 }],
  ['cost of prefill', { ...a, prefill_us: 8 }],
  ['cost of decoding', { ...a, resident_us: 0.1 }],
  ['size of the KV cache', { ...a, kv_tokens: 448_000 }],
  ['batching', { ...a, batching: { max_items: 8 } }],
  ['name of the model there', { ...a, served_model_name: 'x' }],
  ['rate limit', { ...a, limits: { requests_per_minute: 60 } }],
  ['address and weight', { ...a, url: url(9009), weight: 2 }],
])('another %s under the same name replaces the replica', (_, changed) => {
  expect(plan(oneModel([a, b]), oneModel([changed, b]))).toEqual({ ...nothing, replace: ['a'] });
});

test('the same headers in another order or in capitals are no change', () => {
  const headers = { 'x-a': '1', 'x-b': '2' };
  const other = { 'X-B': '2', 'X-A': '1' };
  expect(plan(oneModel([{ ...a, headers }]), oneModel([{ ...a, headers: other }]))).toEqual(
    nothing,
  );
});

test('a replica that moves to another model is replaced', () => {
  const models = (first: object[], second: object[]): Config =>
    config({
      models: [
        { name: 'm', replicas: first },
        { name: 'n', replicas: second },
      ] as ConfigInput['models'],
    });
  expect(plan(models([a, b], [c]), models([b], [c, a]))).toEqual({ ...nothing, replace: ['a'] });
});

test('every other key needs a restart, and its path is named', () => {
  const next = config({
    listen: { port: 1 },
    timeouts: { queue: '1s' },
    models: [{ name: 'm', policy: 'random', session_affinity: false, replicas: [a] }],
  });
  const paths = ['listen.port', 'timeouts.queue', 'models.0.session_affinity', 'models.0.policy'];
  expect(plan(oneModel([a]), next).restart.toSorted()).toEqual(paths.toSorted());
});

test('another model needs a restart', () => {
  const next = config({
    models: [
      { name: 'm', replicas: [a] },
      { name: 'n', replicas: [b] },
    ],
  });
  expect(plan(oneModel([a]), next).restart).toEqual(['models.1']);
});

test('the file is compared with what runs, not with the file before', () => {
  const file = oneModel([a, b]);
  // b was removed and c added at run time: the file brings both back to what it says.
  const running = runningOf(oneModel([a, c]));
  expect(plan(file, file, running)).toEqual({ ...nothing, add: ['b'], remove: ['c'] });
});

test('a replica that gets or loses an adapter of its model is replaced; the order is no change', () => {
  const both = { ...b, adapters: ['x', 'y'] };
  const before = oneModel([{ ...a, adapters: ['x'] }, both]);
  const after = oneModel([
    { ...a, adapters: ['y'] },
    { ...both, adapters: ['y', 'x'] },
  ]);
  expect(plan(before, after)).toEqual({ ...nothing, replace: ['a'] });
  expect(plan(before, oneModel([a, both]))).toEqual({ ...nothing, replace: ['a'] });
});

test('an adapter that the model did not have needs a restart', () => {
  const before = oneModel([{ ...a, adapters: ['x'] }]);
  const after = oneModel([{ ...a, adapters: ['x', 'z'] }]);
  expect(plan(before, after).restart).toEqual(['models.0.replicas.adapters']);
});

type ModelInput = ConfigInput['models'][number];
const twoModels = (of: Partial<ModelInput>, more: Omit<ConfigInput, 'models'> = {}): Config =>
  config({
    ...more,
    models: [
      { name: 'm', replicas: [a], ...of },
      { name: 'n', replicas: [b] },
    ],
  });

test.each<[string, Partial<ModelInput>, string[]]>([
  ['aliases', { aliases: ['x'] }, ['models.0.aliases.0']],
  ['fallbacks', { fallbacks: ['n'] }, ['models.0.fallbacks.0']],
  [
    'others for long prompts',
    { context_window_fallbacks: ['n'] },
    ['models.0.context_window_fallbacks.0'],
  ],
  ['a cascade', { cascade: { model: 'n' } }, ['models.0.cascade']],
  ['a price', { price: { input: 1 } }, ['models.0.price']],
  ['a context', { max_context: 7 }, ['models.0.max_context']],
  ['hosts of media', { allowed_media_domains: ['h'] }, ['models.0.allowed_media_domains.0']],
  ['usage of streams', { stream_usage: 'end' }, ['models.0.stream_usage']],
  ['continuation', { continuation: 'text' }, ['models.0.continuation']],
])('%s of a model change without a restart', (_, of, paths) => {
  const [before, after] = [twoModels({}), twoModels(of)];
  expect(plan(before, after)).toEqual(nothing);
  expect(changedTerms(before, after)).toEqual(paths);
  expect(changedTerms(after, after)).toEqual([]);
});

test('splits change without a restart, replicas are told apart from that', () => {
  const split = (weight: number) => [{ name: 'chat', models: [{ model: 'm', weight }] }];
  const [before, after] = [
    twoModels({}, { splits: split(1) }),
    twoModels({}, { splits: split(2) }),
  ];
  expect(plan(before, after)).toEqual(nothing);
  expect(changedTerms(before, after)).toEqual(['splits.0.models.0.weight']);
  expect(changedTerms(twoModels({}), before)).toEqual(['splits.0']);
  expect(changedTerms(oneModel([a]), oneModel([b, c]))).toEqual([]);
});

test('the name of an adapter that nobody has any more cannot be another name', () => {
  const before = oneModel([{ ...a, adapters: ['x', 'y'] }]);
  const model = (of: Partial<ModelInput>): ConfigInput['models'] => [
    { name: 'm', replicas: [{ ...a, adapters: ['y'] }], ...of },
  ];
  expect(plan(before, config({ models: model({}) })).restart).toEqual([]);
  const aliased = config({ models: model({ aliases: ['x'] }) });
  expect(plan(before, aliased).restart).toEqual(['models.0.aliases']);
  const split = config({
    models: model({}),
    splits: [{ name: 'chat', aliases: ['x'], models: [{ model: 'm' }] }],
  });
  expect(plan(before, split).restart).toEqual(['splits.0']);
});

test('the first price needs a restart where its events have a file and nobody sums them up', () => {
  const usage = { file: '/tmp/usage.ndjson' };
  const priced = { price: { input: 1 } };
  const first = plan(twoModels({}, { usage }), twoModels(priced, { usage }));
  expect(first.restart).toEqual(['models.0.price']);
  expect(plan(twoModels(priced, { usage }), twoModels({}, { usage })).restart).toEqual([]);
  const other = { price: { input: 2 } };
  expect(plan(twoModels(priced, { usage }), twoModels(other, { usage })).restart).toEqual([]);
});
