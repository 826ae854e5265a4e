/** Rules about the names that clients send and what stands behind them, each with its reason. Pure. */
import { adaptersOf } from './adapters.ts';
import type { ConfigPath } from './problems.ts';
import { type Rule, type RuleInput, uniqueNames } from './rule.ts';

export const nameRules: readonly Rule[] = [
  {
    // A request names one model; two owners of a name would make the answer depend on their order.
    name: 'model_names_unique',
    reads: ['models', 'splits'],
    check({ models, splits }, report) {
      const claim = uniqueNames(report);
      for (const [index, model] of models.entries()) {
        claim(model.name, ['models', index, 'name']);
        for (const [nth, alias] of model.aliases.entries()) {
          claim(alias, ['models', index, 'aliases', nth]);
        }
      }
      for (const [index, split] of splits.entries()) {
        claim(split.name, ['splits', index, 'name']);
        for (const [nth, alias] of split.aliases.entries()) {
          claim(alias, ['splits', index, 'aliases', nth]);
        }
      }
      for (const [index, { replicas }] of models.entries()) {
        // The replicas of one model share an adapter's name; nobody else may have it.
        const known = new Set<string>();
        for (const [nth, { adapters }] of replicas.entries()) {
          for (const [place, adapter] of adapters.entries()) {
            const path = ['models', index, 'replicas', nth, 'adapters', place];
            if (adapters.indexOf(adapter) < place) report(path, 'is listed twice');
            else if (!known.has(adapter)) claim(adapter, path);
            known.add(adapter);
          }
        }
      }
    },
  },
  {
    // A name that nobody has would allow nothing, and whoever wrote it meant something.
    name: 'allowed_models_exist',
    reads: ['tenants', 'models', 'splits'],
    check({ tenants, models, splits }, report) {
      const known = new Set([
        ...servedNames(models),
        ...splits.flatMap(({ name, aliases }) => [name, ...aliases]),
      ]);
      const look = (names: readonly string[] | undefined, path: ConfigPath): void => {
        for (const [place, name] of names?.entries() ?? []) {
          if (!known.has(name)) report([...path, place], 'is no model, alias, adapter or split');
        }
      };
      for (const [index, { models: own, keys, model_limits }] of tenants.entries()) {
        look(own, ['tenants', index, 'models']);
        for (const name of Object.keys(model_limits)) {
          if (models.some((model) => model.name === name)) continue;
          report(['tenants', index, 'model_limits', name], 'is the name of no model');
        }
        for (const [nth, key] of keys.entries()) {
          look(key.models, ['tenants', index, 'keys', nth, 'models']);
        }
      }
    },
  },
  {
    // A split of splits would be a second table of weights that nobody sees in the first.
    name: 'splits_name_models',
    reads: ['models', 'splits'],
    check({ models, splits }, report) {
      const known = servedNames(models);
      for (const [index, split] of splits.entries()) {
        const claim = uniqueNames(report);
        for (const [nth, { model }] of split.models.entries()) {
          const path = ['splits', index, 'models', nth, 'model'];
          if (known.has(model)) claim(model, path);
          else report(path, 'is no model, alias or adapter');
        }
        if (split.models.some(({ weight }) => weight > 0)) continue;
        report(['splits', index, 'models'], 'must have a model with a weight above 0');
      }
    },
  },
];

/** Names behind which there are replicas. */
const servedNames = (models: RuleInput['models']): ReadonlySet<string> =>
  new Set(models.flatMap((model) => [model.name, ...model.aliases, ...adaptersOf(model)]));
