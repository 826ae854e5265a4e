/**
 * The keys that this acceptor lets in. Acceptor threads; never blocks; replaced as a whole by a reload.
 *
 * A key is looked up by the head of its SHA-256 and compared in constant time over all of it: what the
 * lookup takes tells of the digest of what was sent, which says nothing of the keys.
 */
import { Buffer } from 'node:buffer';
import { timingSafeEqual } from 'node:crypto';
import {
  type KeyRow,
  type KeyTable,
  refOf,
  type TenantCaps,
  type TenantRow,
} from '../config/tenants.ts';
import { type ErrorEntry, errors } from '../errors/catalogue.ts';
import { digestBytes, digestOfKey, keyOfHeaders } from '../protocol/api-key.ts';
import { ownerOf } from '../protocol/response-key.ts';
import type { Route, RouteAction } from '../protocol/routes.ts';

/** Whose request it is. */
export interface Holder extends TenantCaps {
  /** Index of the tenant. */
  readonly tenant: number;
  readonly tenantName: string;
  /** Whose its stored responses are (protocol/response-key.ts). */
  readonly owner: Int32Array;
  readonly keyId: string;
  /** Of tenant and key together; what requests ask for is added if they may. */
  readonly priority: number;
  readonly mayPrioritise: boolean;
  /** Which model of a cascade its requests want that do not say; '': none. */
  readonly cascade: '' | 'large' | 'small';
  /** In place of its caps, of a request for one of these models; see capsFor. */
  readonly modelCaps: ReadonlyMap<number, TenantCaps>;
  /** What it may ask for (config/tenants.ts, `refOf`); undefined: everything. */
  readonly refs: ReadonlySet<number> | undefined;
  /** Row of the limits of its tenant; -1: it has none. And those of its models that have some. */
  readonly limitRow: number;
  readonly modelRows: ReadonlyMap<number, number>;
  /** Row of the budget of its tenant; -1: it has none. */
  readonly budgetRow: number;
  /** Index of its tenant in the label of metrics. */
  readonly series: number;
  /** Share of its tenant's successes in the access log; undefined: that of everybody. */
  readonly logSample: number | undefined;
}

interface Entry {
  readonly digest: Buffer;
  readonly row: KeyRow;
  readonly holder: Holder;
}

export const isHolder = (found: Holder | ErrorEntry): found is Holder => 'keyId' in found;

/** Probes bring no keys. */
const keyedActions: ReadonlySet<RouteAction> = new Set(['proxy', 'models', 'model']);
export const needsKey = (route: Route | undefined): boolean =>
  route !== undefined && keyedActions.has(route.action);

export const mayUse = ({ refs }: Holder, model: number, adapter: number): boolean =>
  refs === undefined || refs.has(refOf(model, adapter));

const noOwnCaps: TenantCaps = Object.freeze({ maxN: 0, maxContext: 0 });

/** What its requests for the model are held against; of nobody's: nothing but what holds for all. */
export const capsFor = (holder: Holder | undefined, model: number): TenantCaps =>
  holder?.modelCaps.get(model) ?? holder ?? noOwnCaps;

export class KeyRing {
  readonly isRequired: boolean;
  /** By the first 32 bits of the digest. */
  readonly #entries = new Map<number, Entry[]>();

  constructor({ isRequired, tenants, keys }: KeyTable) {
    this.isRequired = isRequired;
    const owners = tenants.map(({ name }) => ownerOf(name));
    const caps = tenants.map((tenant) => new Map(tenant.modelCaps));
    for (const row of keys) {
      const tenant = tenants[row.tenant] as TenantRow;
      const { name: tenantName, mayPrioritise, maxN, maxContext, series, logSample } = tenant;
      const { limitRow, budgetRow, cascade } = tenant;
      const { priority } = row;
      const modelRows = new Map(tenant.modelRows);
      const modelCaps = caps[row.tenant] as Holder['modelCaps'];
      const refs = row.refs === null ? undefined : new Set(row.refs);
      const owner = owners[row.tenant] as Int32Array;
      const of = { tenant: row.tenant, tenantName, owner, keyId: row.id, series, logSample };
      const rights = { priority, mayPrioritise, cascade, maxN, maxContext, modelCaps, refs };
      const holder = { ...of, ...rights, limitRow, modelRows, budgetRow };
      const own = Buffer.from(row.sha256, 'hex');
      const entries = this.#entries.get(headOf(own)) ?? [];
      entries.push({ digest: own, row, holder });
      this.#entries.set(headOf(own), entries);
    }
  }

  /** Whose key the headers carry, or why it does not let in. `nowMs` is of the wall clock. */
  find(authorization: string, apiKey: string, nowMs: number): Holder | ErrorEntry {
    const key = keyOfHeaders(authorization, apiKey);
    if (key === '') return errors.KEY_REQUIRED;
    digestOfKey(key, digest);
    let found: Entry | undefined;
    for (const entry of this.#entries.get(headOf(digest)) ?? []) {
      if (timingSafeEqual(entry.digest, digest)) found = entry;
    }
    if (found === undefined) return errors.KEY_UNKNOWN;
    const { row, holder } = found;
    if (row.isDisabled) return errors.KEY_DISABLED;
    if (row.expiresMs !== 0 && nowMs >= row.expiresMs) return errors.KEY_EXPIRED;
    return holder;
  }
}

/** Of the key at hand; filled and left within one call. */
const digest = Buffer.alloc(digestBytes);

const headOf = (of: Buffer): number => of.readUInt32BE();
