/**
 * What a reload would change, decided before anything is touched. Pure.
 *
 * Replicas, tenants and their keys, splits and most of what is said of a model change while the gateway runs; every
 * other key is fixed when the process starts. A reload that changes such a key is refused whole. The replicas of the
 * file are compared with those that run, whoever added or removed them: afterwards the running state is the file's.
 */
import { isDeepStrictEqual } from 'node:util';
import { adaptersOf, keptAdapters } from '../config/adapters.ts';
import type { Config, ModelConfig } from '../config/schema.ts';
import { wantsLedger } from './ledger-thread.ts';
import type { ReplicaSpec } from './membership.ts';

export interface NamedReplica {
  readonly model: number;
  readonly replica: ReplicaSpec;
}

export interface ReloadPlan {
  /** Paths of changed keys that need a restart; when there are any, nothing is applied. */
  readonly restart: readonly string[];
  readonly add: readonly NamedReplica[];
  readonly remove: readonly string[];
  /** Same name, another address, key, header, limit, cost, model or adapters: the new one takes over, the old one drains. */
  readonly replace: readonly NamedReplica[];
  readonly reweigh: readonly NamedReplica[];
}

/** `current` is the config of the start. */
export function planReload(
  current: Config,
  next: Config,
  running: readonly NamedReplica[],
): ReloadPlan {
  const before = new Map(running.map((named) => [named.replica.name, named]));
  const wanted = next.models.flatMap(({ replicas }, model) =>
    replicas.map((replica) => ({ model, replica })),
  );
  const names = new Set(wanted.map(({ replica }) => replica.name));
  const kept = wanted.flatMap((target) => {
    const present = before.get(target.replica.name);
    return present === undefined ? [] : [{ present, target }];
  });
  return {
    restart: [
      ...changedPaths(fixedPart(current), fixedPart(next), ''),
      ...newAdapters(current, next),
      ...namesOfAdapters(current, next),
      ...firstPrice(current, next),
    ],
    add: wanted.filter(({ replica }) => !before.has(replica.name)),
    remove: [...before.keys()].filter((name) => !names.has(name)),
    replace: kept.filter(isReplaced).map(({ target }) => target),
    reweigh: kept
      .filter((pair) => !isReplaced(pair))
      .filter(({ present, target }) => present.replica.weight !== target.replica.weight)
      .map(({ target }) => target),
  };
}

/** Keys that a row of the replica table has for as long as it stands for one replica. */
const fixedKeys = [
  'url',
  'api_key',
  'api_key_header',
  'max_in_flight',
  'served_model_name',
  'prefill_us',
  'resident_us',
  'kv_tokens',
] as const;

function isReplaced(pair: { present: NamedReplica; target: NamedReplica }): boolean {
  const { present, target } = pair;
  return (
    present.model !== target.model ||
    fixedKeys.some((key) => present.replica[key] !== target.replica[key]) ||
    !isDeepStrictEqual(present.replica.headers, target.replica.headers) ||
    !isDeepStrictEqual(present.replica.batching, target.replica.batching) ||
    !isDeepStrictEqual(present.replica.limits, target.replica.limits) ||
    !haveEqualNames(present.replica.adapters, target.replica.adapters)
  );
}

/** Acceptors learn the names of adapters at their start; a replica may get or lose a known one. */
function newAdapters(current: Config, next: Config): string[] {
  return next.models.flatMap((model, index) => {
    const known = new Set(current.models[index] && adaptersOf(current.models[index]));
    const isNew = keptAdapters(model).some((name) => !known.has(name));
    return isNew ? [`models.${index}.replicas.adapters`] : [];
  });
}

const haveEqualNames = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((name) => b.includes(name));

/** Acceptors know an adapter by its name to their end, also when no replica has it any more. */
function namesOfAdapters(current: Config, next: Config): string[] {
  const known = new Set(current.models.flatMap(adaptersOf));
  const taken = (path: string, names: readonly string[]): string[] =>
    names.some((name) => known.has(name)) ? [path] : [];
  return [
    ...next.models.flatMap(({ aliases }, i) => taken(`models.${i}.aliases`, aliases)),
    ...next.splits.flatMap(({ name, aliases }, i) => taken(`splits.${i}`, [name, ...aliases])),
  ];
}

/** Where nobody wanted to know what was spent, there is no thread that sums it up. */
function firstPrice(current: Config, next: Config): string[] {
  if (wantsLedger(current) || !wantsLedger(next)) return [];
  const index = next.models.findIndex(({ price }) => price !== undefined);
  return index < 0 ? [] : [`models.${index}.price`];
}

/** Paths of what has changed of splits and of the terms of models, and needs no restart. */
export const changedTerms = (current: Config, next: Config): string[] =>
  changedPaths(terms(current), terms(next), '');

const terms = ({ models, splits }: Config): unknown => ({
  models: models.map(({ replicas: _replicas, ...model }) =>
    Object.fromEntries(Object.entries(model).filter(([key]) => !isFixed(key))),
  ),
  splits,
});

/** What the scheduler, metrics and the tokenizer pool are built on at the start. */
const fixedOfModel = ['name', 'policy', 'session_affinity', 'tokenizer', 'lora'] as const;
const isFixed = (key: string): boolean => fixedOfModel.some((fixed) => fixed === key);

function fixedPart({ tenants: _tenants, auth: _auth, splits: _splits, ...config }: Config) {
  const ofModel = (model: ModelConfig) => fixedOfModel.map((key) => [key, model[key]]);
  return { ...config, models: config.models.map((model) => Object.fromEntries(ofModel(model))) };
}

function changedPaths(a: unknown, b: unknown, path: string): string[] {
  if (!isTree(a) || !isTree(b)) return equal(a, b) ? [] : [path];
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].flatMap((key) =>
    changedPaths(a[key], b[key], path === '' ? key : `${path}.${key}`),
  );
}

const isTree = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
