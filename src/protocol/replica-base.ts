/**
 * Where a replica has the paths that requests name. Pure; any thread.
 *
 * The path of its URL is what clients call the base URL of an API: it stands in the place of `/v1`. What is
 * asked outside `/v1` (`/tokenize`, `/metrics`) is beside it: below the base without its last segment where
 * that is a version, below the base where it is none. A URL without a path has its API under `/v1`.
 */
import { type Route, routes } from './routes.ts';

export interface ReplicaBase {
  /** Scheme, host and port. */
  readonly origin: string;
  /** In place of `/v1`. */
  readonly api: string;
  /** Before a path outside it. */
  readonly root: string;
}

const standard = '/v1';

/** `url` as the config has it (replica-url.ts), without a slash at its end. */
export function replicaBase(url: string): ReplicaBase {
  const { origin, pathname } = new URL(url);
  if (pathname === '/') return { origin, api: standard, root: '' };
  return { origin, api: pathname, root: pathname.replace(/\/v\d[^/]*$/, '') };
}

/** What to ask the replica for a path as the gateway has it; a query stays. */
export function pathAt({ api, root }: ReplicaBase, path: string): string {
  return path.startsWith('/v1/') ? api + path.slice(standard.length) : root + path;
}

export function urlAt(url: string, path: string): string {
  const base = replicaBase(url);
  return base.origin + pathAt(base, path);
}

/** A replica as a request line sees it: its paths are made once, for all requests. */
export class ReplicaPaths {
  readonly base: ReplicaBase;
  readonly #ofRoutes: readonly string[];

  constructor(url: string) {
    this.base = replicaBase(url);
    const paths: string[] = [];
    for (const { id, path } of routes) paths[id] = pathAt(this.base, path);
    this.#ofRoutes = paths;
  }

  ofRoute({ id }: Route): string {
    return this.#ofRoutes[id] as string;
  }

  of(path: string): string {
    return pathAt(this.base, path);
  }
}
