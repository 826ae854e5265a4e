/** What the names that clients send stand for: models, their aliases and adapters, and splits. Pure. */
import { assert } from '../lib/assert.ts';
import type { ReplyRules } from '../protocol/reply-judge.ts';
import { adaptersOf } from './adapters.ts';
import type { Config } from './schema.ts';

type CascadeConfig = NonNullable<Config['models'][number]['cascade']>;

/** The numbers of a name inside the gateway; adapter 0: the model itself. */
export interface ModelRef {
  readonly model: number;
  readonly adapter: number;
}

interface Named {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly adapters?: readonly string[];
}

/** A share of the requests for a split. */
export interface SplitTarget extends ModelRef {
  readonly weight: number;
}

/** The larger model of a cascade. */
export interface CascadeRef extends ModelRef {
  /** Prompts of so many and more go there; 0: those that ask for it alone. */
  readonly promptBytes: number;
  /** Replies of the smaller one that are discarded for its own; absent: none. */
  readonly onReply?: ReplyRules | undefined;
}

/** A name whose requests several models share. */
export interface SplitRow {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly targets: readonly SplitTarget[];
}

/** Splits are numbered behind the models: the first one is `model` models.length. */
export function modelsByName(
  models: readonly Named[],
  splits: readonly Omit<SplitRow, 'targets'>[] = [],
): ReadonlyMap<string, ModelRef> {
  const found = new Map<string, ModelRef>();
  for (const [model, { name, aliases, adapters = [] }] of models.entries()) {
    for (const own of [name, ...aliases]) found.set(own, { model, adapter: 0 });
    for (const [i, adapter] of adapters.entries()) found.set(adapter, { model, adapter: i + 1 });
  }
  for (const [i, { name, aliases }] of splits.entries()) {
    for (const own of [name, ...aliases]) found.set(own, { model: models.length + i, adapter: 0 });
  }
  return found;
}

/** Every name of the config. */
export const namesOf = ({ models, splits }: Pick<Config, 'models' | 'splits'>) =>
  modelsByName(
    models.map((model) => ({ ...model, adapters: adaptersOf(model) })),
    splits,
  );

/** Where requests for each model go instead of it or after it, as numbers; undefined: nowhere. */
export function onwardRefs(config: Pick<Config, 'models' | 'splits'>) {
  const names = namesOf(config);
  const refsOf = (list: readonly string[]): readonly ModelRef[] | undefined =>
    list.length === 0 ? undefined : list.map((name) => refOfServed(names, name));
  return config.models.map(({ fallbacks, context_window_fallbacks, cascade: to }) => ({
    fallbacks: refsOf(fallbacks),
    contextFallbacks: refsOf(context_window_fallbacks),
    cascade: to && {
      ...refOfServed(names, to.model),
      promptBytes: to.prompt_bytes,
      onReply: to.on_reply && replyRules(to.on_reply),
    },
  }));
}

function replyRules(rules: NonNullable<CascadeConfig['on_reply']>): ReplyRules {
  const { refusal, finish_reasons: finishReasons, header = '', field = '' } = rules;
  return { refusal, finishReasons, header, field, meanLogprobBelow: rules.mean_logprob_below };
}

function refOfServed(names: ReadonlyMap<string, ModelRef>, name: string): ModelRef {
  const ref = names.get(name);
  assert(ref !== undefined, 'the config was checked');
  return ref;
}

/** The splits with the numbers of their models. */
export function splitRows(config: Pick<Config, 'models' | 'splits'>): readonly SplitRow[] {
  const names = namesOf(config);
  return config.splits.map(({ name, aliases, models }) => ({
    name,
    aliases,
    targets: models.map(({ model, weight }) => ({ ...refOfServed(names, model), weight })),
  }));
}
