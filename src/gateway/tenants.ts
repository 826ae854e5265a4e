/**
 * Tenants and their keys while the gateway runs: what the config says, what the admin listener has changed
 * since, and the table that acceptors get of both. Main thread.
 *
 * Of a key that is made here only its digest stays; the key is in the one answer and nowhere else. As with
 * replicas, a reload takes back what was changed by hand.
 */
import { keysMax } from '../config/capacities.ts';
import { parseNewKey } from '../config/new-key.ts';
import type { Config } from '../config/schema.ts';
import { type KeyTable, keyTable, type TenantSource } from '../config/tenants.ts';
import { newKey, sha256Of } from '../protocol/api-key.ts';
import { AdminError } from './admin-server.ts';
import { LimitRows } from './limit-rows.ts';

type TenantConfig = Config['tenants'][number];
type KeyConfig = TenantConfig['keys'][number];

export class Tenants {
  #source: TenantSource;
  readonly #tell: (keys: KeyTable) => Promise<void>;

  readonly #limits: LimitRows;

  /** `limits`: region of the limit table. */
  constructor(
    source: TenantSource,
    limits: SharedArrayBuffer,
    tell: (keys: KeyTable) => Promise<void>,
  ) {
    this.#source = source;
    this.#limits = new LimitRows(limits);
    this.#tell = tell;
    this.#limits.apply(source.tenants);
  }

  get table(): KeyTable {
    return keyTable(this.#source, this.#limits.rowOf);
  }

  /** Takes what a reload has read; resolves when every acceptor goes by it. */
  replace(source: TenantSource): Promise<void> {
    this.#source = source;
    this.#limits.apply(source.tenants);
    return this.#tell(this.table);
  }

  view(): unknown {
    const { isRequired } = this.table;
    const nowMs = Date.now();
    return {
      keys_required: isRequired,
      tenants: this.#source.tenants.map(({ name, models, priority, keys, model_limits }) => ({
        name,
        models: models ?? null,
        priority,
        limits: this.#limits.view(this.#limits.rowOf(name)),
        model_limits: Object.fromEntries(
          Object.keys(model_limits).map((model) => [
            model,
            this.#limits.view(this.#limits.rowOf(name, model)),
          ]),
        ),
        keys: keys.map(({ id, sha256, expires, disabled, models: own }) => ({
          id,
          sha256: `${sha256.slice(0, 8)}…`,
          state: disabled
            ? 'disabled'
            : expires !== undefined && expires <= nowMs
              ? 'expired'
              : 'active',
          expires: expires === undefined ? null : new Date(expires).toISOString(),
          models: own ?? null,
        })),
      })),
    };
  }

  /** Makes a key for the tenant; `body` is what `sluice.yaml` has for one, without its digest. */
  async create(tenant: string, body: unknown): Promise<unknown> {
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
    await this.#change(tenant, [...keys, { ...parsed.value, sha256 }]);
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
    if (!keys.some((key) => key.id === id)) throw new AdminError(404, `no key ${id}`);
    await this.#change(
      tenant,
      keys.map((key) => (key.id === id ? { ...key, disabled } : key)),
    );
    return { tenant, id, state: disabled ? 'disabled' : 'active' };
  }

  #tenant(name: string): TenantConfig {
    const tenant = this.#source.tenants.find((each) => each.name === name);
    if (tenant === undefined) throw new AdminError(404, `no tenant ${name}`);
    return tenant;
  }

  #change(name: string, keys: readonly KeyConfig[]): Promise<void> {
    const tenants = this.#source.tenants.map((each) =>
      each.name === name ? { ...each, keys } : each,
    );
    return this.replace({ ...this.#source, tenants });
  }
}
