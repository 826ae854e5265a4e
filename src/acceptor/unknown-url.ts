/** What a client is told whose URL is none of ours: most often its base URL lacks `/v1`, or has it twice. Pure. */
import { matchRoute } from '../protocol/routes.ts';

const match = { route: undefined, allow: '', parameter: '' };

/** A message that names the URL that was probably meant; '' where none is like it. */
export function unknownUrl(method: string, target: string): string {
  const path = target.split('?', 1)[0] as string;
  const bare = path.replace(/\/+$/, '').replace(/^(\/v1)+/, '');
  for (const meant of [`/v1${bare}`, bare]) {
    if (meant === path || matchRoute(method, meant, match) === undefined) continue;
    return `Unknown request URL. Did you mean ${method} ${meant}?`;
  }
  return '';
}
