/**
 * What a client is told whose URL is none of ours: most often its base URL lacks `/v1`, or has it twice. Pure.
 * Nothing that it sent is repeated: a URL may hold a secret.
 */
import { matchRoute } from '../protocol/routes.ts';

const match = { route: undefined, allow: '', parameter: '' };

/** A message that names the URL that was probably meant; '' where none is like it. */
export function unknownUrl(method: string, target: string): string {
  const path = target.split('?', 1)[0] as string;
  const bare = path.replace(/\/+$/, '').replace(/^(\/v1)+/, '');
  for (const meant of [`/v1${bare}`, bare]) {
    const route = meant === path ? undefined : matchRoute(method, meant, match);
    if (route === undefined) continue;
    const place = route.dynamic ? `{id}${route.suffix}` : '';
    return `Unknown request URL. Did you mean ${route.method} ${route.path}${place}?`;
  }
  return '';
}
