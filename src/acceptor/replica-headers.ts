/** What a replica is sent of a request's head; the forwarder adds the rest (forwarder/upstream-head.ts). Acceptor threads. */
import type { EdgeHead } from './edge-head.ts';
import type { RequestFacts } from './request.ts';
import { pushTraceContext, type Tracing } from './tracing.ts';

/** `list` is emptied first: it is the caller's, for one request at a time. */
export function collectHeaders(
  list: string[],
  { target, rules }: EdgeHead,
  { route, requestId, holder, trace }: RequestFacts,
  tracing: Tracing | undefined,
): void {
  list.length = 0;
  if (route?.dynamic === true || target.length !== route?.path.length) list.push(':path', target);
  const { forwarded, authorization, apiKey, traceparent } = rules;
  for (const text of forwarded) list.push(text);
  // A key of ours is nothing to a replica.
  if (authorization !== '' && holder === undefined) list.push('authorization', authorization);
  if (apiKey !== '' && holder === undefined) list.push('x-api-key', apiKey);
  pushTraceContext(list, tracing, trace, traceparent);
  list.push('x-request-id', requestId);
}
