/**
 * What each tenant has had, part of the catalogue. The first `metrics.tenants` of the config have series of
 * their own (gateway/tenant-series.ts), the others count as `other`; requests without a tenant are not counted.
 *
 * All of it is counted once a request, when that is over. What comes with each token is by model alone: the
 * sequences of an engine's batch advance together, whoever asked, and each token would pay for it. Histograms
 * are by tenant alone: by 64 models as well they would be 3,136 lines of the page for each of them.
 */
import { firstTokenBounds, requestBounds } from './metric-bounds.ts';
import { counter, histogram } from './metric-makers.ts';

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
  tenantRequestDuration: histogram(
    'sluice_tenant_request_duration_seconds',
    ['tenant'],
    ['acceptor'],
    requestBounds,
    'From the request line to the last byte handed to the client socket, of each request in `sluice_tenant_requests_total`.',
  ),
  tenantFirstToken: histogram(
    'sluice_tenant_time_to_first_token_seconds',
    ['tenant'],
    ['acceptor'],
    firstTokenBounds,
    'From the request line to the first content token of a stream, counted when the request is over, however it ended.',
  ),
});
