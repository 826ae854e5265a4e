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
      for (const [index, { replicas, lora }] of models.entries()) {
        // The replicas of one model share an adapter's name; nobody else may have it.
        const known = new Set<string>();
        for (const [nth, { name }] of lora?.adapters.entries() ?? []) {
          claim(name, ['models', index, 'lora', 'adapters', nth, 'name']);
          known.add(name);
        }
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
    // What one model has its replica load, the other would have it give up under running requests.
    name: 'lora_replicas_of_one_model',
    reads: ['models'],
    check({ models }, report) {
      const owners = new Map<string, number>();
      for (const [index, { replicas, lora }] of models.entries()) {
        for (const [nth, { url }] of replicas.entries()) {
          const owner = owners.get(url) ?? index;
          owners.set(url, owner);
          if (owner === index || (lora ?? models[owner]?.lora) === undefined) continue;
          report(
            ['models', index, 'replicas', nth, 'url'],
            `is a replica of models.${owner} too, which a model with lora may not share`,
          );
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
  {
    // What goes on to the model it comes from goes round in a circle.
    name: 'fallbacks_are_other_models',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        for (const list of fallbackLists) {
          const claim = uniqueNames(report);
          for (const [nth, name] of model[list].entries()) {
            const path = ['models', index, list, nth];
            const owner = ownerOf(models, name);
            if (owner === undefined) report(path, 'is no model, alias or adapter');
            else if (owner === model) report(path, 'must be another model');
            else claim(name, path);
          }
        }
      }
    },
  },
  {
    // Media are looked at once, when a request comes: its replicas must not fetch elsewhere what was refused here.
    name: 'fallbacks_fetch_no_more_media',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        const allowed = model.allowed_media_domains;
        for (const { name, path } of onwardOf(model)) {
          const own = ownerOf(models, name)?.allowed_media_domains ?? ['*'];
          const isWider = allowed.some((host) => !own.includes(host));
          if (own.includes('*') || !isWider) continue;
          report(
            ['models', index, ...path],
            'has a narrower allowed_media_domains than the model that falls back to it',
          );
        }
      }
    },
  },
  {
    // A larger model that is the same one would be a name for nothing.
    name: 'cascade_goes_to_another_model',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        if (model.cascade === undefined) continue;
        const { model: name } = model.cascade;
        const path = ['models', index, 'cascade', 'model'];
        const owner = ownerOf(models, name);
        if (owner === undefined) report(path, 'is no model, alias or adapter');
        else if (owner === model) report(path, 'must be another model');
      }
    },
  },
  {
    // Who wrote it down wants some replies discarded, and none would be.
    name: 'cascade_judges_by_something',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, { cascade }] of models.entries()) {
        if (cascade?.on_reply === undefined) continue;
        const { refusal, finish_reasons, header, field, mean_logprob_below } = cascade.on_reply;
        const flags = [header, field, mean_logprob_below];
        const isNone = flags.every((flag) => flag === undefined);
        if (refusal || finish_reasons.length > 0 || !isNone) continue;
        report(['models', index, 'cascade', 'on_reply'], 'must say which replies are discarded');
      }
    },
  },
  {
    // Its requests could not be told from those of others.
    name: 'cascade_of_tenant_has_a_model',
    reads: ['models', 'tenants'],
    check({ models, tenants }, report) {
      if (models.some(({ cascade }) => cascade !== undefined)) return;
      for (const [index, { cascade }] of tenants.entries()) {
        if (cascade === 'auto') continue;
        report(['tenants', index, 'cascade'], 'is for models with a cascade, and there are none');
      }
    },
  },
  {
    // A slot counts the attempts of a request in six bits.
    name: 'attempts_fit_the_slot',
    reads: ['models', 'retry'],
    check({ models, retry: { max_attempts } }, report) {
      for (const [index, model] of models.entries()) {
        const most = Math.floor(attemptsMax / max_attempts) - 1;
        if (fallbacksOf(model) > most) {
          report(
            ['models', index, 'fallbacks'],
            `must be at most ${most} with the context_window_fallbacks: retry.max_attempts is of each`,
          );
        }
        const { model: name = '', on_reply } = model.cascade ?? {};
        const larger = on_reply && ownerOf(models, name);
        if (larger === undefined || 1 + fallbacksOf(larger) <= most) continue;
        report(
          ['models', index, 'cascade', 'on_reply'],
          `must lead to at most ${most} models, ${name} and its fallbacks: retry.max_attempts is of each`,
        );
      }
    },
  },
];

const fallbackLists = ['fallbacks', 'context_window_fallbacks'] as const;
/** Below attemptsLimit of shm/request-slots.layout.ts, with room for those that threads lost at their death. */
const attemptsMax = 48;

const namesOfModel = (model: RuleInput['models'][number]): readonly string[] => [
  model.name,
  ...model.aliases,
  ...adaptersOf(model),
];

const ownerOf = (models: RuleInput['models'], name: string) =>
  models.find((model) => namesOfModel(model).includes(name));

const fallbacksOf = ({
  fallbacks,
  context_window_fallbacks,
}: RuleInput['models'][number]): number => fallbacks.length + context_window_fallbacks.length;

/** Where requests go on that came for the model. */
function onwardOf(model: RuleInput['models'][number]) {
  const listed = fallbackLists.flatMap((list) =>
    model[list].map((name, nth) => ({ name, path: [list, nth] as ConfigPath })),
  );
  const { cascade } = model;
  if (cascade?.on_reply === undefined) return listed;
  return [...listed, { name: cascade.model, path: ['cascade', 'model'] as ConfigPath }];
}

/** Names behind which there are replicas. */
const servedNames = (models: RuleInput['models']): ReadonlySet<string> =>
  new Set(models.flatMap(namesOfModel));
