/**
 * Keys while a reload is under way: who may use what is the file's at once, what names stand for comes last, when its
 * replicas are there. Until then a name that will stand for others is only for keys that had it before. Pure.
 */
import { adaptersOf } from './adapters.ts';
import { namesOf } from './model-names.ts';
import type { Config } from './schema.ts';
import { type KeyTable, refOf } from './tenants.ts';

type Names = Pick<Config, 'models' | 'splits'>;

/**
 * What names of `from` stand for (refOf) that stand for other models, or for nothing, in `to`. A number is that of
 * all names of a model or split: where one alias moves, those that stay are moved with it.
 */
export function movedRefs(from: Names, to: Names): ReadonlySet<number> {
  const [before, after] = [modelsBehind(from), modelsBehind(to)];
  const moved = new Set<number>();
  for (const [name, { model, adapter }] of namesOf(from)) {
    if (before.get(name) !== after.get(name)) moved.add(refOf(model, adapter));
  }
  return moved;
}

/** `next`, whose refs are those of `before`, without such of `moved` as the key did not have. */
export function narrowedKeys(
  next: KeyTable,
  before: KeyTable,
  moved: ReadonlySet<number>,
): KeyTable {
  const had = new Map(before.keys.map(({ sha256, refs }) => [sha256, refs]));
  const keys = next.keys.map((key) => {
    const ofKey = had.get(key.sha256);
    if (key.refs === null || ofKey === null) return key;
    return { ...key, refs: key.refs.filter((ref) => !moved.has(ref) || ofKey?.includes(ref)) };
  });
  return { ...next, keys };
}

/** By name, the models and adapters that serve for it. */
function modelsBehind({ models, splits }: Names): ReadonlyMap<string, string> {
  const behind = new Map<string, string>();
  for (const model of models) {
    for (const own of [model.name, ...model.aliases]) behind.set(own, model.name);
    for (const adapter of adaptersOf(model)) behind.set(adapter, adapter);
  }
  const served = splits.map(({ name, aliases, models: targets }) => {
    const all = targets.filter(({ weight }) => weight > 0).map(({ model }) => behind.get(model));
    return { names: [name, ...aliases], models: [...new Set(all)].toSorted().join(' ') };
  });
  for (const { names, models: of } of served) for (const name of names) behind.set(name, of);
  return behind;
}
