/**
 * The table of public routes: method and path to what the acceptor must know. Pure; any thread.
 *
 * Paths match exactly, byte for byte, after the query string is dropped; a dynamic segment takes
 * `[A-Za-z0-9._~:@-]`, so dot segments, double slashes and percent-encoding never match anything. The
 * name of a model, which is looked up here and reaches no replica, is the exception: it may hold `/`,
 * and clients encode it. Ids are stable: they cross threads.
 */
import { assert } from '../lib/assert.ts';

/** Where the model of a request is named. */
export type ModelSource = 'json' | 'multipart' | 'path' | 'none';
/**
 * How the completeness of an answer is judged. `stored`: of one that was given before, or of what it stands
 * for: what it used and whether it failed was told then.
 */
export type AnswerShape =
  | 'openai-chat'
  | 'openai-completions'
  | 'anthropic'
  | 'responses'
  | 'stored'
  | 'whole';
/** The answer is one the gateway knows the parts of, and counts. */
export const isFollowed = (shape: AnswerShape): boolean => shape !== 'whole' && shape !== 'stored';

/** `proxy` goes to a replica; the others are answered by the gateway itself. */
export type RouteAction = 'proxy' | 'models' | 'model' | 'health' | 'ready' | 'root';

export interface Route {
  readonly id: number;
  readonly method: 'GET' | 'POST' | 'DELETE' | 'HEAD';
  /** The path, or its fixed part when `dynamic`. Also the path asked of a replica. */
  readonly path: string;
  readonly dynamic: boolean;
  /** Behind the dynamic segment; '' where that is the last. */
  readonly suffix: string;
  readonly action: RouteAction;
  readonly model: ModelSource;
  readonly shape: AnswerShape;
  /** True when the route honours `stream: true`. */
  readonly streams: boolean;
  /** A model reads what is sent; else its tokens are counted or made into text, and nobody pays for those. */
  readonly isRead: boolean;
}

export interface RouteMatch {
  /** Undefined: 404 when `allow` is empty, else 405. */
  route: Route | undefined;
  /** Methods of the path, for the `allow` header. */
  allow: string;
  /** The dynamic segment; '' for fixed paths. */
  parameter: string;
}

const table: Route[] = [];

function local(id: number, method: 'GET' | 'HEAD', path: string, action: RouteAction): void {
  const dynamic = path.endsWith('/') && path !== '/';
  const shape = 'whole';
  const rest = { action, model: 'none', shape, streams: false, isRead: false } as const;
  table.push({ id, method, path, dynamic, suffix: '', ...rest });
}

function post(
  id: number,
  path: string,
  model: ModelSource,
  shape: AnswerShape,
  isRead = true,
): void {
  const streams = shape !== 'whole' || path === '/v1/audio/transcriptions';
  table.push({
    id,
    method: 'POST',
    path,
    dynamic: false,
    suffix: '',
    action: 'proxy',
    model,
    shape,
    streams,
    isRead,
  });
}

/** Requests for a response that a replica keeps. */
function byId(id: number, method: 'GET' | 'POST' | 'DELETE', suffix = ''): void {
  table.push({
    id,
    method,
    path: '/v1/responses/',
    dynamic: true,
    suffix,
    action: 'proxy',
    model: 'path',
    shape: 'stored',
    streams: method === 'GET' && suffix === '',
    isRead: false,
  });
}

post(1, '/v1/chat/completions', 'json', 'openai-chat');
post(2, '/v1/completions', 'json', 'openai-completions');
post(3, '/v1/embeddings', 'json', 'whole');
post(4, '/v1/responses', 'json', 'responses');
post(5, '/v1/messages', 'json', 'anthropic');
post(6, '/v1/messages/count_tokens', 'json', 'whole', false);
post(7, '/v1/rerank', 'json', 'whole');
post(8, '/rerank', 'json', 'whole');
post(9, '/v1/score', 'json', 'whole');
post(10, '/v1/classify', 'json', 'whole');
post(11, '/tokenize', 'json', 'whole', false);
post(12, '/detokenize', 'json', 'whole', false);
post(13, '/v1/tokenize', 'json', 'whole', false);
post(14, '/v1/detokenize', 'json', 'whole', false);
post(15, '/v1/audio/transcriptions', 'multipart', 'whole');
post(16, '/v1/audio/translations', 'multipart', 'whole');
post(17, '/v1/audio/speech', 'json', 'whole');
post(18, '/v1/images/generations', 'json', 'whole');
post(19, '/v1/images/edits', 'multipart', 'whole');
post(20, '/v1/images/variations', 'multipart', 'whole');
byId(21, 'GET');
byId(22, 'DELETE');
byId(23, 'POST', '/cancel');
byId(24, 'GET', '/input_items');
local(30, 'GET', '/v1/models', 'models');
local(31, 'GET', '/v1/models/', 'model');
local(32, 'GET', '/healthz', 'health');
local(33, 'GET', '/livez', 'health');
local(34, 'GET', '/health', 'health');
local(35, 'GET', '/readyz', 'ready');
local(36, 'HEAD', '/', 'root');
local(37, 'HEAD', '/healthz', 'health');
local(38, 'HEAD', '/readyz', 'ready');

/** Every route, in the order of the table. */
export const routes: readonly Route[] = Object.freeze(table.map((route) => Object.freeze(route)));

const byNumber: (Route | undefined)[] = Array.from({ length: 64 });
for (const route of routes) {
  assert(byNumber[route.id] === undefined, 'route ids are unique');
  byNumber[route.id] = route;
}

/** The route of an id another thread sent. */
export function routeOf(id: number): Route {
  const route = byNumber[id];
  assert(route !== undefined, 'a route id comes from the table');
  return route;
}

const fixed = new Map<string, Route[]>();
const prefixes = new Map<string, Route[]>();
for (const route of routes) {
  const map = route.dynamic ? prefixes : fixed;
  map.set(route.path, [...(map.get(route.path) ?? []), route]);
}

/** Whose errors the clients of a path read: those under /v1/messages, found or not, are Anthropic's. */
export const isAnthropicTarget = (target: string): boolean =>
  /^\/v1\/messages(?:[/?]|$)/.test(target);

/** As GET does where POST says it in its body. */
export const asksForStream = (target: string): boolean => /[?&]stream=true(?:&|$)/.test(target);

const idPattern = /^[A-Za-z0-9._~:@-]{1,256}$/;
/** What encodeURIComponent lets through, and what people type. */
const encodedModelPattern = /^[A-Za-z0-9._~:@/%!*'()-]{1,768}$/;
/** Names the config allows. */
const modelPattern = /^[\x21-\x7e]{1,256}$/;

/** Fills `match` for a request line. `target` may carry a query string; it is dropped. */
export function matchRoute(method: string, target: string, match: RouteMatch): Route | undefined {
  match.route = undefined;
  match.allow = '';
  match.parameter = '';
  const query = target.indexOf('?');
  const path = query < 0 ? target : target.slice(0, query);
  const found = fixed.get(path) ?? matchDynamic(path, match);
  if (found === undefined) return undefined;
  for (const route of found) if (route.method === method) match.route = route;
  if (match.route === undefined) match.allow = found.map((route) => route.method).join(', ');
  return match.route;
}

function matchDynamic(path: string, match: RouteMatch): Route[] | undefined {
  for (const [prefix, found] of prefixes) {
    if (!path.startsWith(prefix)) continue;
    const isModel = found[0]?.action === 'model';
    const suffix = isModel ? '' : suffixOf(path, found);
    const text = path.slice(prefix.length, path.length - suffix.length);
    const parameter = isModel ? modelOf(text) : text;
    if (!(isModel ? modelPattern : idPattern).test(parameter)) return undefined;
    for (const segment of parameter.split('/')) {
      if (segment === '' || segment === '.' || segment === '..') return undefined;
    }
    match.parameter = parameter;
    return found.filter((route) => route.suffix === suffix);
  }
  return undefined;
}

/** The longest that one of the routes has and the path ends with. */
const suffixOf = (path: string, found: readonly Route[]): string =>
  found.reduce(
    (longest, { suffix }) =>
      suffix.length > longest.length && path.endsWith(suffix) ? suffix : longest,
    '',
  );

/** The name of a model in a path; '' for what is no encoding of one. */
function modelOf(text: string): string {
  if (!encodedModelPattern.test(text)) return '';
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}
