/**
 * What each tenant has had, part of the catalogue. The first `metrics.tenants` of the config have series of
 * their own (gateway/tenant-series.ts), the others count as `other`; requests without a tenant are not counted.
 */
import { counter } from './metric-makers.ts';

export const tenantMetrics = () => ({
  tenantRequests: counter(
    'sluice_tenant_requests_total',
    ['tenant', 'code'],
    ['acceptor'],
    'Requests of the tenant that were answered, by the status its client got; 429: over a limit of its own, or a full queue.',
  ),
  tenantTokens: counter(
    'sluice_tenant_tokens_total',
    ['tenant', 'model', 'type'],
    ['acceptor'],
    'Tokens of what the clients of the tenant got, counted when a request is over, as in its usage event; cached is a part of input.',
  ),
});
