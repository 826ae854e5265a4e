/** Tenants and keys of the config as the threads know them. Pure. */
import { smallerLimit } from '../lib/smaller-limit.ts';
import { adaptersMax, priorityMax } from './capacities.ts';
import { namesOf } from './model-names.ts';
import type { Config } from './schema.ts';

/** What a request asks for, as one number: the model, one of its adapters, or a split. */
export const refOf = (model: number, adapter: number): number =>
  model * (adaptersMax + 1) + adapter;

/** Of one request; 0: as for all. */
export interface TenantCaps {
  readonly maxN: number;
  readonly maxContext: number;
}

export interface TenantRow extends TenantCaps {
  readonly name: string;
  readonly mayPrioritise: boolean;
  /** What its requests want that do not say: as `x-sluice-cascade`; '': nothing. */
  readonly cascade: '' | 'large' | 'small';
  /** In place of its caps, for its models that have some of their own: the smaller of each. */
  readonly modelCaps: readonly (readonly [model: number, caps: TenantCaps])[];
  /** Row of its limits; -1: it has none. And those of its models that have some of their own. */
  readonly limitRow: number;
  readonly modelRows: readonly (readonly [model: number, row: number])[];
  /** Row of its budget; -1: it has none. */
  readonly budgetRow: number;
  /** Index in the `tenant` label of metrics. */
  readonly series: number;
  /** Share of its successes in the access log; undefined: that of everybody. */
  readonly logSample: number | undefined;
}

/** What a tenant may spend in a day and in a month of UTC; 0: no limit. */
export interface BudgetRow {
  readonly tenant: string;
  readonly row: number;
  /** It is refused while it is not known what other gateways have spent of it. */
  readonly isClosed: boolean;
  readonly day: number;
  readonly month: number;
}

export interface KeyRow {
  readonly id: string;
  /** Index of its tenant. */
  readonly tenant: number;
  readonly sha256: string;
  /** Of the wall clock; 0: it does not expire. */
  readonly expiresMs: number;
  readonly isDisabled: boolean;
  /** Of its requests: the tenant's and its own together. */
  readonly priority: number;
  /** What it may ask for (refOf); null: everything. */
  readonly refs: readonly number[] | null;
}

export interface KeyTable {
  /** Requests without a key are refused. */
  readonly isRequired: boolean;
  readonly tenants: readonly TenantRow[];
  readonly keys: readonly KeyRow[];
}

export type TenantSource = Pick<Config, 'auth' | 'limits' | 'tenants' | 'models' | 'splits'>;

/** Where the limits of a tenant are, and those of a model of its; -1: there are none. */
export type LimitRowOf = (tenant: string, model?: string) => number;

/** `seriesOf`: index of a tenant in the label of metrics. */
export function keyTable(
  source: Omit<TenantSource, 'limits'>,
  rowOf: LimitRowOf,
  budgetRowOf: (tenant: string) => number,
  seriesOf: (tenant: string) => number,
): KeyTable {
  const { auth, tenants, models } = source;
  const known = namesOf(source);
  const refsOf = (names: readonly string[] | undefined): number[] | null => {
    if (names === undefined) return null;
    return names.flatMap((name) => {
      const named = known.get(name);
      return named === undefined ? [] : [refOf(named.model, named.adapter)];
    });
  };
  const keys = tenants.flatMap(({ keys: own, models: ofTenant, priority: base }, tenant) => {
    const allowed = refsOf(ofTenant);
    return own.map(({ id, sha256, expires = 0, disabled, priority, models: ofKey }): KeyRow => {
      const refs = meet(refsOf(ofKey), allowed);
      const row = { id, tenant, sha256, expiresMs: expires, isDisabled: disabled };
      const sum = Math.max(-priorityMax, Math.min(priorityMax, base + priority));
      return { ...row, priority: sum, refs };
    });
  });
  const isRequired = auth.keys === 'required' || (auth.keys === 'auto' && tenants.length > 0);
  const rows = tenants.map((tenant): TenantRow => {
    const { name, priority_header, limits, model_limits, log_sample: logSample } = tenant;
    const { max_n: maxN, max_context: maxContext } = limits;
    const ofModels = Object.entries(model_limits).flatMap(([model, own]) => {
      const index = models.findIndex((each) => each.name === model);
      return index < 0 ? [] : [{ index, row: rowOf(name, model), own }];
    });
    const modelRows = ofModels.flatMap(({ index, row }) =>
      row < 0 ? [] : [[index, row] as const],
    );
    const modelCaps = ofModels.flatMap(({ index, own: { max_n: n, max_context: context } }) => {
      if (n === 0 && context === 0) return [];
      const caps = { maxN: smallerLimit(n, maxN), maxContext: smallerLimit(context, maxContext) };
      return [[index, caps] as const];
    });
    const mayPrioritise = priority_header;
    const cascade = tenant.cascade === 'auto' ? ('' as const) : tenant.cascade;
    const [limitRow, budgetRow, series] = [rowOf(name), budgetRowOf(name), seriesOf(name)];
    const rights = { mayPrioritise, cascade, maxN, maxContext, modelCaps };
    return { name, ...rights, limitRow, modelRows, budgetRow, series, logSample };
  });
  return { isRequired, tenants: rows, keys };
}

const meet = (
  a: readonly number[] | null,
  b: readonly number[] | null,
): readonly number[] | null =>
  a === null || b === null ? (a ?? b) : a.filter((ref) => b.includes(ref));
