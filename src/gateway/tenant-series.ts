/**
 * Which tenants have metrics of their own. Main thread; acceptors get the index with the key table.
 *
 * The first of the config have, up to a bound: the operator puts those whose figures matter first. Whoever ranks by
 * traffic moves tenants between their own series and `other`, and a counter that another one takes over tells
 * wrong rates of both. So an index, once given, is its tenant's until the process ends, also while the config
 * does not name it; tenants that a reload brings take what is left.
 */
import { defaultMetricDims } from '../telemetry/labels.ts';
import type { TenantReading } from './metrics.ts';

export class TenantSeries {
  readonly #max: number;
  readonly #indexes = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  apply(tenants: readonly { readonly name: string }[]): void {
    for (const { name } of tenants) {
      if (this.#indexes.size >= this.#max) return;
      if (!this.#indexes.has(name)) this.#indexes.set(name, this.#indexes.size);
    }
  }

  /** Index of the tenant in the label; that of `other` when it has none of its own. */
  readonly indexOf = (name: string): number => this.#indexes.get(name) ?? defaultMetricDims.tenants;

  has(name: string): boolean {
    return this.#indexes.has(name);
  }

  *named(): Iterable<TenantReading> {
    for (const [name, index] of this.#indexes) yield { name, index };
  }
}
