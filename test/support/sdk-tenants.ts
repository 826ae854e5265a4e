/** Tenants of a gateway that client libraries meet: one that may do all, one that may little, and the poor. */
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { SdkSubject } from './sdk-cases.ts';

type Tenants = NonNullable<ConfigInput['tenants']>;

/** `count` sets of keys, each with buckets of its own; the models a narrow key may use. */
export function sdkTenants(
  count: number,
  narrowModels: string[],
): { readonly tenants: Tenants; readonly keys: readonly SdkSubject['keys'][] } {
  const tenants: Tenants = [];
  const tenant = (name: string, more: Partial<Tenants[number]>): string => {
    const key = newKey();
    tenants.push({ name, keys: [{ id: `key-of-${name}`, sha256: sha256Of(key) }], ...more });
    return key;
  };
  const full = tenant('full', {});
  const narrow = tenant('narrow', { models: narrowModels });
  const keys = Array.from({ length: count }, (_, i) => ({
    ...{ full, narrow },
    limited: tenant(`limited-${i}`, { limits: { requests_per_minute: 30, burst: '2s' } }),
    spent: tenant(`spent-${i}`, { limits: { output_tokens_per_minute: 1, burst: '10m' } }),
  }));
  return { tenants, keys };
}
