/**
 * The URL of a replica: scheme, host, port, and the base path of its API (protocol/replica-base.ts). Pure.
 *
 * One place has one spelling, because a replica is told from others by it: no slash at the end, and `/v1`
 * alone, where an API is anyway, is left out.
 */
import { z } from 'zod';
import { isForbiddenHost } from './address.ts';

export const replicaUrl = z
  .string()
  .max(2048)
  .meta({ format: 'uri' })
  .transform((text, context): string => {
    const message = problemOf(text);
    if (message === undefined) return spelled(new URL(text));
    context.issues.push({ code: 'custom', message, input: text });
    return z.NEVER;
  });

/** What people paste who take the URL of one request for the base of all. */
const ofOneRequest =
  /(\/(?:chat\/completions|completions|embeddings|messages|models|responses))\/*$/;

function problemOf(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null) return 'must be a URL such as http://10.0.0.7:8000';
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return 'must be http or https';
  if (url.username !== '' || url.password !== '') {
    return 'must not contain credentials; use api_key';
  }
  // `href` ends in `?` or `#` for an empty query or fragment, where `search` and `hash` are empty.
  if (/[?#]/.test(url.href)) return 'must not contain a query or a fragment';
  const ending = ofOneRequest.exec(url.pathname)?.[1];
  if (ending !== undefined) return `must be the base of all requests, without ${ending}`;
  if (/\/\/./.test(url.pathname)) return 'must not have an empty segment in its path';
  if (url.port === '0') return 'must not have port 0';
  if (isForbiddenHost(url.hostname)) {
    return 'must not be a link-local, metadata, multicast or unspecified address';
  }
  return undefined;
}

function spelled({ origin, pathname }: URL): string {
  const path = pathname.replace(/\/+$/, '');
  return path === '/v1' ? origin : origin + path;
}
