/**
 * What a config says and nothing comes of: valid, and not what its writer thinks. Pure; at load and reload.
 *
 * `raw` is the config as it was given, before defaults: a key that was written down is meant, unless it
 * says what is so anyway. Like problems, warnings never carry a value of the file.
 */
import { isDeepStrictEqual } from 'node:util';
import { valueAt } from './issues.ts';
import { namesOf } from './model-names.ts';
import type { ConfigPath } from './problems.ts';
import { hasBudget, hasRate, isCounted, type Report } from './rule.ts';
import { type Config, ConfigSchema } from './schema.ts';
import { keyTable } from './tenants.ts';

type Warning = (config: Config, report: Report, raw: unknown) => void;

type Limits = Config['tenants'][number]['model_limits'][string];
type Tenant = Config['tenants'][number];

const limitsOf = ({ limits, model_limits }: Tenant): Limits[] => [
  limits,
  ...Object.values(model_limits),
];

/** Models that the tenant may use: by their names, their adapters, splits, and where those go on. */
function modelsOf(config: Config, { models: allowed }: Tenant): ReadonlySet<number> {
  const { models, splits } = config;
  if (allowed === undefined) return new Set(models.keys());
  const known = namesOf(config);
  const found = new Set<number>();
  const open = [...allowed];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const index = known.get(name)?.model ?? -1;
    if (index < 0 || found.has(index)) continue;
    found.add(index);
    const split = splits[index - models.length];
    for (const { model } of split?.models ?? []) open.push(model);
    const { fallbacks = [], context_window_fallbacks = [], cascade } = models[index] ?? {};
    open.push(...fallbacks, ...context_window_fallbacks, ...(cascade ? [cascade.model] : []));
  }
  return found;
}

/** Keys that do nothing without another: where they are, what they need, and whether it is there. */
const needs: readonly (readonly [ConfigPath, string, (config: Config) => boolean])[] = [
  ...['redis', 'gateways', 'failure_mode'].map(
    (key) =>
      [
        ['limits', key],
        '`limits.store: redis`',
        ({ limits }: Config) => limits.store === 'redis',
      ] as const,
  ),
  ...['max_size', 'keep', 'buffer', 'currency'].map(
    (key) => [['usage', key], '`usage.file`', ({ usage }: Config) => usage.file !== ''] as const,
  ),
  ...['path', 'timeout'].map(
    (key) =>
      [
        ['engine_metrics', key],
        'an `engine_metrics.interval`',
        ({ engine_metrics: { interval } }: Config) => interval > 0,
      ] as const,
  ),
  ...['window', 'failure_rate'].map(
    (key) =>
      [
        ['breaker', key],
        '`breaker.mode: window`',
        ({ breaker: { mode } }: Config) => mode === 'window',
      ] as const,
  ),
  [
    ['breaker', 'consecutive'],
    '`breaker.mode: consecutive`',
    ({ breaker: { mode } }) => mode === 'consecutive',
  ],
  [['health', 'token_timeout'], 'a `health.stall`', ({ health: { stall } }) => stall > 0],
  [['hedge', 'budget'], '`hedge.automatic: true`', ({ hedge: { automatic } }) => automatic],
  [
    ['tokenizers'],
    'a model with a `tokenizer`',
    ({ models }) => models.some(({ tokenizer }) => tokenizer !== undefined),
  ],
];

/** All but what it must have is at its default. */
const smallest = { models: [{ name: 'm', replicas: [{ url: 'http://localhost:1' }] }] };

const warnings: readonly Warning[] = [
  function keysWithoutTheirOther(config, report, raw) {
    const idle = needs.filter(
      ([path, , isThere]) => valueAt(raw, path) !== undefined && !isThere(config),
    );
    if (idle.length === 0) return;
    const defaults = ConfigSchema.parse(smallest);
    for (const [path, what] of idle) {
      if (isDeepStrictEqual(valueAt(config, path), valueAt(defaults, path))) continue;
      report(path, `does nothing without ${what}`);
    }
  },

  function tenantsWithoutKeys({ auth, tenants, admin }, report) {
    if (auth.keys === 'off') {
      if (tenants.length === 0) return;
      const text =
        'is `off`: nobody is known as a tenant, and all that `tenants` says does nothing';
      report(['auth', 'keys'], text);
      return;
    }
    if (admin.token !== '') return; // keys may be made at the admin listener
    for (const [index, { keys }] of tenants.entries()) {
      if (keys.length === 0) report(['tenants', index], 'has no key: nobody is let in as it');
    }
  },

  function keysOfNoModel(config, report) {
    const { keys } = keyTable(
      config,
      () => -1,
      () => -1,
      () => -1,
    );
    let row = 0;
    for (const [index, tenant] of config.tenants.entries()) {
      for (const nth of tenant.keys.keys()) {
        if (keys[row++]?.refs?.length !== 0) continue;
        const path = ['tenants', index, 'keys', nth, 'models'];
        report(path, 'names none of the models of its tenant: the key may use nothing');
      }
    }
  },

  function budgetsOfFreeModels(config, report) {
    const { models, tenants } = config;
    const free = [...models.keys()].filter((index) => models[index]?.price === undefined);
    if (free.length === 0) return;
    for (const [index, tenant] of tenants.entries()) {
      if (!hasBudget(tenant.budget)) continue;
      const used = modelsOf(config, tenant);
      const [first, ...more] = free.filter((model) => used.has(model));
      if (first === undefined) continue;
      const others = more.length === 0 ? '' : ` and ${more.length} more`;
      const text = `is never spent by requests for models without a price: models.${first}${others}`;
      report(['tenants', index, 'budget'], text);
    }
  },

  function limitsOfOtherModels(config, report) {
    const { models, tenants } = config;
    for (const [index, tenant] of tenants.entries()) {
      const used = modelsOf(config, tenant);
      for (const name of Object.keys(tenant.model_limits)) {
        if (used.has(models.findIndex((model) => model.name === name))) continue;
        report(
          ['tenants', index, 'model_limits', name],
          'is for a model that the tenant may not use',
        );
      }
    }
  },

  function capsAboveThoseOfTheTenant({ tenants }, report) {
    for (const [index, { limits, model_limits }] of tenants.entries()) {
      for (const [name, ofModel] of Object.entries(model_limits)) {
        for (const key of ['max_n', 'max_context'] as const) {
          if (limits[key] === 0 || ofModel[key] <= limits[key]) continue;
          const path = ['tenants', index, 'model_limits', name, key];
          report(path, `does nothing: \`limits.${key}\` of the tenant is smaller`);
        }
      }
    }
  },

  function burstsOfNoRate({ tenants }, report, raw) {
    for (const [index, { limits, model_limits }] of tenants.entries()) {
      const own = [[['limits'], limits] as const];
      const ofModels = Object.entries(model_limits).map(
        ([name, each]) => [['model_limits', name], each] as const,
      );
      for (const [at, each] of [...own, ...ofModels]) {
        const path = ['tenants', index, ...at, 'burst'];
        if (hasRate(each) || valueAt(raw, path) === undefined) continue;
        report(path, 'does nothing without a limit per minute');
      }
    }
  },

  function failureModesOfNothing({ limits, tenants }, report) {
    for (const [index, tenant] of tenants.entries()) {
      if (tenant.failure_mode === undefined) continue;
      const path = ['tenants', index, 'failure_mode'];
      const isLimited = limitsOf(tenant).some(isCounted);
      if (limits.store !== 'redis') report(path, 'does nothing without `limits.store: redis`');
      else if (!isLimited && !hasBudget(tenant.budget)) {
        report(path, 'does nothing: the tenant has neither limits that are counted nor a budget');
      }
    }
  },

  function storesOfNothing({ limits, tenants }, report, raw) {
    if (limits.store !== 'redis') return;
    const limited = tenants.filter((tenant) => limitsOf(tenant).some(hasRate));
    if (limited.length === 0 && !tenants.some(({ budget }) => hasBudget(budget))) {
      report(['limits', 'store'], 'does nothing: no tenant has limits per minute or a budget');
    }
    const isOpen = limited.some(({ failure_mode: own }) => (own ?? limits.failure_mode) === 'open');
    if (!isOpen || valueAt(raw, ['limits', 'gateways']) !== undefined) return;
    const text =
      'is shared with `failure_mode: open` and without `limits.gateways`: while Redis does not answer, ' +
      'each gateway allows all of every limit';
    report(['limits', 'store'], text);
  },

  function loadsLongerThanWaits({ models, timeouts }, report) {
    for (const [index, { lora }] of models.entries()) {
      if (lora === undefined || lora.load_timeout < timeouts.queue) continue;
      report(
        ['models', index, 'lora', 'load_timeout'],
        'is not below `timeouts.queue`: where a load hangs, requests are refused before another replica is asked',
      );
    }
  },

  function pricesOfNobody({ models, usage }, report) {
    if (usage.file !== '') return;
    for (const [index, { price }] of models.entries()) {
      if (price === undefined) continue;
      report(['models', index, 'price'], 'does nothing without `usage.file`');
    }
  },
];

/** More would only hide the first. */
const warningsMax = 100;

export function warningsOf(config: Config, raw: unknown): (readonly [ConfigPath, string])[] {
  const found: (readonly [ConfigPath, string])[] = [];
  for (const warning of warnings) warning(config, (path, text) => found.push([path, text]), raw);
  return found.slice(0, warningsMax);
}
