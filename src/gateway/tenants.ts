/**
 * Tenants and their keys while the gateway runs: what the config says, what the admin listener has changed
 * since, and the table that acceptors get of both. Main thread.
 *
 * Of a key that is made here only its digest stays; the key is in the one answer and nowhere else. A reload
 * takes keys back that were made by hand, and lets none in again that was disabled by hand.
 */
import { keysMax } from '../config/capacities.ts';
import { movedRefs, narrowedKeys } from '../config/narrowed-keys.ts';
import { parseNewKey } from '../config/new-key.ts';
import type { Config } from '../config/schema.ts';
import { type BudgetRow, type KeyTable, keyTable, type TenantSource } from '../config/tenants.ts';
import { newKey, sha256Of } from '../protocol/api-key.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { LimitNames } from '../shm/threads.ts';
import { AdminError } from './admin-server.ts';
import { Budgets } from './budgets.ts';
import { LimitRows } from './limit-rows.ts';
import type { LimitReading, ModelLimitReading } from './metrics.ts';
import { TenantSeries } from './tenant-series.ts';

type TenantConfig = Config['tenants'][number];
interface MadeKey {
  readonly tenant: string;
  readonly id: string;
  /** Shown this once. */
  readonly key: string;
  readonly sha256: string;
  readonly note: string;
}

type KeyConfig = TenantConfig['keys'][number];

/** What threads are told of tenants. */
export interface TenantTables {
  /** Who is let in. */
  readonly keys: KeyTable;
  /** Of the rows of the limits, in a store that is shared. */
  readonly limitNames: LimitNames;
  /** What they may spend. */
  readonly budgets: readonly BudgetRow[];
}

export class Tenants {
  #source: TenantSource;
  /** Of the reload that is under way: the keys before it, and what its names will not stand for any more. */
  #change: { readonly before: KeyTable; readonly moved: ReadonlySet<number> } | undefined;
  readonly #tell: (tables: TenantTables) => Promise<void>;
  #told: Promise<void> = Promise.resolve();
  /** Digests of keys that were disabled by hand. */
  readonly #disabled = new Set<string>();

  readonly #limits: LimitRows;
  readonly #budgets: Budgets;
  /** Of metrics. */
  readonly series: TenantSeries;

  /** `tell` resolves when every thread goes by them. */
  constructor(
    source: TenantSource & Pick<Config, 'metrics'>,
    memory: Pick<SharedMemory, 'limits' | 'sharedLimits' | 'ledger'>,
    tell: (tables: TenantTables) => Promise<void>,
  ) {
    this.#source = source;
    this.#limits = new LimitRows(memory, source.limits.failure_mode);
    this.#budgets = new Budgets(memory.ledger, source.limits.failure_mode);
    this.#tell = tell;
    this.#limits.apply(source.tenants);
    this.#budgets.apply(source.tenants);
    this.series = new TenantSeries(source.metrics.tenants);
    this.series.apply(source.tenants);
  }

  get tables(): TenantTables {
    const { rowOf, names } = this.#limits;
    const change = this.#change;
    const keys = keyTable(this.#source, rowOf, this.#budgets.rowOf, this.series.indexOf);
    return {
      keys: change === undefined ? keys : narrowedKeys(keys, change.before, change.moved),
      limitNames: names,
      budgets: this.#budgets.rows,
    };
  }

  /**
   * Takes what a reload has read. Names that are to stand for other models do so from rename() on: until then, or
   * until widen(), no key gets one of them.
   */
  narrow(next: Pick<TenantSource, 'auth' | 'tenants' | 'models' | 'splits'>): Promise<void> {
    const moved = movedRefs(this.#source, next);
    const before = moved.size === 0 ? undefined : (this.#change?.before ?? this.tables.keys);
    this.#change = before && { before, moved };
    return this.replace(next);
  }

  /**
   * Resolves when every acceptor goes by it. Models and adapters keep the numbers that the threads know them by
   * since the start. A key that was disabled by hand stays so.
   */
  replace({ auth, tenants }: Pick<TenantSource, 'auth' | 'tenants'>): Promise<void> {
    this.#source = { ...this.#source, auth, tenants: this.#withoutDisabled(tenants) };
    this.#limits.apply(tenants);
    this.#budgets.apply(tenants);
    this.series.apply(tenants);
    return this.#tellInTurn();
  }

  /** The reload is through and leaves every name as it was: keys have what the file gives them. */
  widen(): Promise<void> {
    if (this.#change === undefined) return this.#told;
    this.#change = undefined;
    return this.#tellInTurn();
  }

  /**
   * Keys are by the numbers of these names from here on; `tell` gives both to the threads at once. In turn
   * with other tables: one with the old numbers may be under way.
   */
  rename(
    { models, splits }: Pick<TenantSource, 'models' | 'splits'>,
    tell: (keys: KeyTable) => Promise<void>,
  ): Promise<void> {
    this.#told = this.#afterTold(() => {
      this.#source = { ...this.#source, models, splits };
      this.#change = undefined;
      return tell(this.tables.keys);
    });
    return this.#told;
  }

  /** What those have left that have series of their own. */
  limitsLeft(): LimitReading[] {
    return this.#inSeries().flatMap(({ name: tenant }) =>
      this.#left({ tenant }, this.#limits.rowOf(tenant)),
    );
  }

  /** What they have left for single models. */
  modelLimitsLeft(): ModelLimitReading[] {
    return this.#inSeries().flatMap(({ name: tenant, model_limits }) =>
      Object.keys(model_limits).flatMap((model) =>
        this.#left({ tenant, model }, this.#limits.rowOf(tenant, model)),
      ),
    );
  }

  view(): unknown {
    const { isRequired } = this.tables.keys;
    const nowMs = Date.now();
    return {
      keys_required: isRequired,
      tenants: this.#source.tenants.map((tenant) => {
        const { name, models, priority, keys, model_limits } = tenant;
        return {
          name,
          models: models ?? null,
          priority,
          budget: this.#budgets.view(tenant),
          limits: this.#limits.view(this.#limits.rowOf(name)),
          model_limits: Object.fromEntries(
            Object.keys(model_limits).map((model) => [
              model,
              this.#limits.view(this.#limits.rowOf(name, model)),
            ]),
          ),
          keys: keys.map(({ id, sha256, expires, disabled, priority: ofKey, models: own }) => ({
            id,
            priority: ofKey,
            sha256: `${sha256.slice(0, 8)}…`,
            state: disabled
              ? 'disabled'
              : expires !== undefined && expires <= nowMs
                ? 'expired'
                : 'active',
            expires: expires === undefined ? null : new Date(expires).toISOString(),
            models: own ?? null,
          })),
        };
      }),
    };
  }

  /** Makes a key for the tenant; `body` is what `sluice.yaml` has for one, without its digest. */
  async create(tenant: string, body: unknown): Promise<MadeKey> {
    const { keys } = this.#tenant(tenant);
    const parsed = parseNewKey(body);
    if (!parsed.ok) throw new AdminError(400, parsed.message);
    const { id } = parsed.value;
    if (keys.some((key) => key.id === id)) {
      throw new AdminError(409, `the tenant has a key ${id} already`);
    }
    if (keys.length >= keysMax) throw new AdminError(409, `a tenant has at most ${keysMax} keys`);
    const key = newKey();
    const sha256 = sha256Of(key);
    await this.#setKeys(tenant, [...keys, { ...parsed.value, sha256 }]);
    return {
      tenant,
      id,
      key,
      sha256,
      note: 'until the next reload: put id and sha256 into the config',
    };
  }

  async setDisabled(tenant: string, id: string, disabled: boolean): Promise<unknown> {
    const { keys } = this.#tenant(tenant);
    const found = keys.find((key) => key.id === id);
    if (found === undefined) throw new AdminError(404, `no key ${id}`);
    if (disabled) this.#disabled.add(found.sha256);
    else this.#disabled.delete(found.sha256);
    await this.#setKeys(
      tenant,
      keys.map((key) => (key.id === id ? { ...key, disabled } : key)),
    );
    return { tenant, id, state: disabled ? 'disabled' : 'active' };
  }

  /** One table after the other: the answer to each says that it is the one in force. */
  /** One that has failed holds up none behind it: a key must be disabled all the same. */
  #afterTold(tell: () => Promise<void>): Promise<void> {
    return this.#told.catch(() => {}).then(tell);
  }

  #tellInTurn(): Promise<void> {
    this.#told = this.#afterTold(() => this.#tell(this.tables));
    return this.#told;
  }

  #inSeries(): readonly TenantConfig[] {
    return this.#source.tenants.filter(({ name }) => this.series.has(name));
  }

  #left<T extends object>(whose: T, row: number): (T & { dimension: string; left: number })[] {
    return [...this.#limits.left(row)].map(([dimension, left]) => ({ ...whose, dimension, left }));
  }

  #withoutDisabled(tenants: Config['tenants']): Config['tenants'] {
    return tenants.map((tenant) => ({
      ...tenant,
      keys: tenant.keys.map((key) => {
        return this.#disabled.has(key.sha256) ? { ...key, disabled: true } : key;
      }),
    }));
  }

  #tenant(name: string): TenantConfig {
    const tenant = this.#source.tenants.find((each) => each.name === name);
    if (tenant === undefined) throw new AdminError(404, `no tenant ${name}`);
    return tenant;
  }

  #setKeys(name: string, keys: readonly KeyConfig[]): Promise<void> {
    const tenants = this.#source.tenants.map((each) =>
      each.name === name ? { ...each, keys } : each,
    );
    return this.replace({ ...this.#source, tenants });
  }
}
