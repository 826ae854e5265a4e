/**
 * The head of the request a replica gets. Pure; forwarder threads.
 *
 * It is built from the header blob of the acceptor, which holds nothing but allow-listed headers, opens
 * with `:method` and `:path` where they are not those of the route, and has `:trace` where the request
 * is traced. Host, content-length and connection belong to the HTTP client; hop-by-hop headers are
 * dropped here once more, because undici refuses a whole request over one of them.
 */
import type { Dispatcher } from 'undici';
import { decodeHeaders } from '../protocol/header-codec.ts';
import { isOfConnection } from '../protocol/http-rules.ts';
import type { OwnHeaders } from '../protocol/own-headers.ts';
import type { ReplicaPaths } from '../protocol/replica-base.ts';
import type { Route } from '../protocol/routes.ts';

export interface UpstreamHead {
  readonly method: Dispatcher.HttpMethod;
  readonly path: string;
  /** Name, value, name, value ... */
  readonly headers: string[];
  /** The span of a request that is traced, as a `traceparent`; '' for others. */
  readonly requestSpan: string;
  /** The client's own is among the headers. */
  readonly hasTraceparent: boolean;
}

/** Strings of the blob at hand; read and left within one call. */
const decoded: string[] = [];

/** `own` are sent in place of the client's. */
export function upstreamHead(
  blob: Uint8Array,
  route: Route,
  paths: ReplicaPaths,
  own: OwnHeaders,
): UpstreamHead {
  let method: string = route.method;
  let path = paths.ofRoute(route);
  let requestSpan = '';
  let hasTraceparent = false;
  // Compressed answers could not be scanned, and they save nothing on a short hop.
  const headers = ['accept-encoding', 'identity'];
  for (const text of own.list) headers.push(text);
  if (blob.length > 0) decodeHeaders(blob, 0, decoded);
  else decoded.length = 0;
  for (let i = 0; i + 1 < decoded.length; i += 2) {
    const name = decoded[i] as string;
    const value = decoded[i + 1] as string;
    if (name === ':method') method = value;
    else if (name === ':path') path = paths.of(value);
    else if (name === ':trace') requestSpan = value;
    else if (!isOfConnection(name) && !own.replaces(name)) {
      headers.push(name, value);
      if (name === 'traceparent') hasTraceparent = true;
    }
  }
  const ofTrace = { requestSpan, hasTraceparent };
  return { method: method as Dispatcher.HttpMethod, path, headers, ...ofTrace };
}
