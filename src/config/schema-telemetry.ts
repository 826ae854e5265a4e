/** The config of what the gateway tells of requests beside its log: metrics, traces. Pure; see schema.ts. */
import { z } from 'zod';
import { tenantSeriesMax } from './capacities.ts';
import { integer, secret, share } from './values.ts';

const endpoint = () =>
  z
    .string()
    .max(2048)
    .superRefine((text, context) => {
      const message = text === '' ? undefined : endpointProblem(text);
      if (message !== undefined) context.addIssue({ code: 'custom', message });
    });

function endpointProblem(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    return 'must be an OTLP/HTTP address such as http://127.0.0.1:4318/v1/traces';
  }
  if (url.username !== '' || url.password !== '') {
    return 'must not contain a user or a password; put them into `headers`';
  }
  if (url.hash !== '') return 'must not contain a fragment';
  if (url.port === '4317') return 'must be that of OTLP/HTTP, usually port 4318; 4317 is OTLP/gRPC';
  if (url.pathname === '/') return 'must have the path of traces, usually /v1/traces';
  return undefined;
}

export const Metrics = z.strictObject({
  tenants: integer(0, tenantSeriesMax)
    .prefault(100)
    .describe(
      'Tenants with metrics of their own, the first ones of `tenants`; the others count as `other`. A tenant keeps its series until the process ends.',
    ),
  genai: z
    .boolean()
    .prefault(false)
    .describe(
      'Also metrics under the names of OpenTelemetry’s conventions for GenAI: `gen_ai_server_request_duration_seconds` and others.',
    ),
});

export const Tracing = z.strictObject({
  endpoint: endpoint()
    .prefault('')
    .describe(
      'OTLP/HTTP (protobuf) address of an OpenTelemetry collector, as http://127.0.0.1:4318/v1/traces. Empty: requests are not traced, and a `traceparent` goes on to the replica as it came.',
    ),
  sample: share()
    .prefault(0.01)
    .describe(
      'Share of requests that are traced, by trace id. Where a client sends a `traceparent`, its sampled flag decides.',
    ),
  max_per_second: integer(1, 100_000)
    .prefault(200)
    .describe(
      'Requests that each acceptor traces in a second at most; more are served without spans and counted. Clients can set the sampled flag.',
    ),
  service_name: z
    .string()
    .min(1)
    .max(255)
    .prefault('sluice')
    .describe('`service.name` of the spans.'),
  headers: z
    .record(z.string().regex(/^[A-Za-z0-9-]{1,128}$/), secret())
    .prefault({})
    .describe('Headers sent to the collector, such as an API key.'),
});
