/**
 * What a reload would change, decided before anything is touched. Pure.
 *
 * Replicas come, go and change while the gateway runs; every other key is fixed when the process
 * starts. A reload that changes such a key is refused whole, so that the running state is always that
 * of one file.
 */
import type { Config, ReplicaConfig } from '../config/schema.ts';

export interface NamedReplica {
  readonly model: number;
  readonly replica: ReplicaConfig;
}

export interface ReloadPlan {
  /** Paths of changed keys that need a restart; when there are any, nothing is applied. */
  readonly restart: readonly string[];
  readonly add: readonly NamedReplica[];
  readonly remove: readonly string[];
  /** Same name, another address, key, limit or model: the old one drains, the new one takes over. */
  readonly replace: readonly NamedReplica[];
  readonly reweigh: readonly NamedReplica[];
}

export function planReload(current: Config, next: Config): ReloadPlan {
  const before = byName(current);
  const after = byName(next);
  const kept = [...after.values()].flatMap((target) => {
    const present = before.get(target.replica.name);
    return present === undefined ? [] : [{ present, target }];
  });
  const isReplaced = ({ present, target }: (typeof kept)[number]): boolean =>
    !equal(
      { ...present, replica: { ...present.replica, weight: 0 } },
      {
        ...target,
        replica: { ...target.replica, weight: 0 },
      },
    );
  return {
    restart: changedPaths(withoutReplicas(current), withoutReplicas(next), ''),
    add: [...after.values()].filter(({ replica }) => !before.has(replica.name)),
    remove: [...before.keys()].filter((name) => !after.has(name)),
    replace: kept.filter(isReplaced).map(({ target }) => target),
    reweigh: kept
      .filter((pair) => !isReplaced(pair))
      .filter(({ present, target }) => present.replica.weight !== target.replica.weight)
      .map(({ target }) => target),
  };
}

function byName(config: Config): Map<string, NamedReplica> {
  const entries = config.models.flatMap(({ replicas }, model) =>
    replicas.map((replica) => [replica.name, { model, replica }] as const),
  );
  return new Map(entries);
}

const withoutReplicas = (config: Config): unknown => ({
  ...config,
  models: config.models.map((model) => ({ ...model, replicas: [] })),
});

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
