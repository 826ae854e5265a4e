/**
 * Admin listener: metrics, cluster state, slot table, and changes of the membership. Runs on the
 * main thread over node:http; no request of a client ever passes here. It is open before the gateway
 * serves, and until then answers probes alone: what the pages show is not there yet. Two processes share
 * its address (SO_REUSEPORT) only while one takes over from the other.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, Server as NetServer } from 'node:net';
import { nowMs } from '../lib/clock.ts';
import { ListenError } from '../lib/listen-error.ts';
import { quietTurn } from '../lib/quiet-turn.ts';
import { validRequestId } from '../protocol/request-id.ts';
import { probeSole } from './addresses.ts';
import { type Access, mayChange, mayRead } from './admin-access.ts';
import { type AuditLog, changeOf } from './audit.ts';
import type { ByHand } from './by-hand.ts';

/** What the listener shows and does; the gateway implements it. */
export interface AdminActions {
  /** An action has failed by no doing of its caller. */
  failed(error: unknown): void;
  isStarting(): boolean;
  ready(): { ready: boolean; reason: string };
  metrics(): Promise<{ contentType: string; text: string }>;
  cluster(): unknown;
  slots(): unknown;
  /** Why a recent request went where it went; undefined when it is not recorded. */
  explain(requestId: string): unknown;
  /** Changes answer with what they did, or throw an AdminError. */
  drain(name: string): unknown;
  undrain(name: string): unknown;
  remove(name: string): Promise<unknown>;
  add(body: unknown): Promise<{ readonly name: string }>;
  reload(): Promise<unknown>;
  /** Tenants and the ids of their keys. */
  tenants(): unknown;
  /** Answers with the key, this once. */
  createKey(tenant: string, body: unknown): Promise<{ readonly id: string }>;
  disableKey(tenant: string, id: string, disabled: boolean): Promise<unknown>;
  /** Asks for a restart that overlaps. */
  restart(): unknown;
  /** Does something to a thread; absent in a gateway that is not under test. */
  readonly fault: ((body: unknown) => unknown) | undefined;
}

/** A refusal with a status that the listener turns into an error body. */
export class AdminError extends Error {
  override name = 'AdminError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** What a change has turned out to be about, for the audit log. */
  readonly target?: string;
}

const changes = { drain: 'drained', undrain: 'undrained', remove: 'removed' } as const;
const explainPath = '/admin/explain/';
const tenantsPath = '/admin/tenants/';
const keyPath = /^([A-Za-z0-9._-]{1,64})\/keys(?:\/([A-Za-z0-9._-]{1,64})\/(disable|enable))?$/;
const bodyBytesMax = 64 * 1024;
const json = (status: number, value: unknown): Answer => ({
  status,
  type: 'application/json; charset=utf-8',
  body: `${JSON.stringify(value, undefined, 2)}\n`,
});
const failure = (status: number, message: string): Answer =>
  json(status, { error: { message, type: 'admin_error', param: null, code: null } });

const auditCloseMs = 500;

export class AdminServer {
  readonly #server: Server;
  readonly #actions: AdminActions;
  readonly #token: string;
  readonly #byHand: ByHand;
  readonly #audit: AuditLog;
  #accepted = 0;
  #isReplaced = false;

  constructor(actions: AdminActions, token: string, byHand: ByHand, audit: AuditLog) {
    this.#actions = actions;
    this.#audit = audit;
    this.#byHand = byHand;
    this.#token = token;
    this.#server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (req, res) => {
      this.#answer(req)
        .catch((error) => this.#failureOf(error))
        .then((answer) => {
          if (this.#isReplaced) res.setHeader('connection', 'close');
          send(req, res, answer);
        });
    });
    this.#server.on('connection', () => this.#accepted++);
    this.#server.maxConnections = 256;
  }

  /** `shared`: with the process that has the address and will leave it. Otherwise nobody may have it. */
  async listen(host: string, port: number, shared: boolean): Promise<number> {
    // A socket that may be shared would join whoever has the port; one that may not finds out.
    if (!shared && canShare) await probeSole('admin', { host, port });
    return listenOn(this.#server, host, port, canShare);
  }

  /** Another process has the address: takes no new connection, and each that is left has one answer. */
  async stopListening(): Promise<void> {
    await quietTurn(() => this.#accepted);
    NetServer.prototype.close.call(this.#server); // that of http.Server closes idle connections
    this.#isReplaced = true;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await this.#audit.close(auditCloseMs);
  }

  async #answer(req: IncomingMessage): Promise<Answer> {
    const path = (req.url ?? '/').split('?', 1)[0] as string;
    if (req.method === 'POST') return this.#change(req, path);
    if (req.method !== 'GET' && req.method !== 'HEAD') return failure(405, 'use GET or POST');
    if (path === '/healthz') return json(200, { ok: true });
    if (path === '/readyz') {
      const state = this.#actions.ready();
      return json(state.ready ? 200 : 503, state);
    }
    const refused = this.#refusal(mayRead(req, this.#token));
    if (refused !== undefined) return refused;
    switch (path) {
      case '/metrics': {
        const { contentType, text } = await this.#actions.metrics();
        return { status: 200, type: contentType, body: text };
      }
      case '/v1/cluster':
        return json(200, this.#actions.cluster());
      case '/admin/slots':
        return json(200, this.#actions.slots());
      case '/admin/tenants':
        return json(200, this.#actions.tenants());
      default:
        if (path.startsWith(explainPath)) return this.#explain(path.slice(explainPath.length));
        return failure(404, 'no such admin page');
    }
  }

  #explain(requestId: string): Answer {
    if (!validRequestId(requestId)) {
      return failure(
        400,
        'a request id has 1 to 128 letters, digits, dots, dashes and underscores',
      );
    }
    const explained = this.#actions.explain(requestId);
    if (explained !== undefined) return json(200, explained);
    return failure(404, 'not recorded: no such request got a replica, or too many got one since');
  }

  #failureOf(error: unknown): Answer {
    if (error instanceof AdminError) return failure(error.status, error.message);
    this.#actions.failed(error);
    return failure(500, 'the admin action failed; see the log');
  }

  async #change(req: IncomingMessage, path: string): Promise<Answer> {
    const startMs = nowMs();
    const remote = req.socket.remoteAddress ?? '';
    const access = mayChange(req, this.#token);
    const refused = this.#refusal(access);
    const answer =
      refused ?? (await this.#apply(req, path).catch((error) => this.#failureOf(error)));
    const change = changeOf(path);
    if (change !== undefined) {
      this.#audit.write({
        ...change,
        ...(answer.target !== undefined && { target: answer.target }),
        who: access === 'allowed' ? 'admin' : 'nobody',
        remote,
        status: answer.status,
        ms: nowMs() - startMs,
      });
    }
    return answer;
  }

  async #apply(req: IncomingMessage, path: string): Promise<Answer> {
    if (path === '/admin/reload') return json(200, await this.#actions.reload());
    if (path === '/admin/restart') return json(202, this.#actions.restart());
    const { fault } = this.#actions;
    if (path === '/admin/fault' && fault !== undefined)
      return json(200, fault(await readJson(req)));
    if (path === '/admin/replicas') {
      const added = await this.#actions.add(await readJson(req));
      this.#byHand.added(added.name);
      return { ...json(201, added), target: added.name };
    }
    if (path.startsWith(tenantsPath)) return this.#changeKeys(req, path.slice(tenantsPath.length));
    const match = /^\/admin\/replicas\/([A-Za-z0-9._-]{1,64})\/(drain|undrain|remove)$/.exec(path);
    if (match === null) return failure(404, 'no such admin action');
    const name = match[1] as string;
    const action = match[2] as 'drain' | 'undrain' | 'remove';
    const done = await this.#actions[action](name);
    this.#byHand[changes[action]](name);
    return json(200, done);
  }

  async #changeKeys(req: IncomingMessage, path: string): Promise<Answer> {
    const match = keyPath.exec(path);
    if (match === null) return failure(404, 'no such admin action');
    const [, tenant, id, action] = match as unknown as [string, string, string?, string?];
    if (id === undefined) {
      const made = await this.#actions.createKey(tenant, await readJson(req));
      this.#byHand.key(tenant, made.id, 'made');
      return { ...json(201, made), target: `${tenant}/${made.id}` };
    }
    const changed = await this.#actions.disableKey(tenant, id, action === 'disable');
    this.#byHand.key(tenant, id, action === 'disable' ? 'disabled' : 'enabled');
    return json(200, changed);
  }

  #refusal(access: Access): Answer | undefined {
    if (access === 'forbidden') {
      return failure(403, 'not allowed from here; set admin.token and send it as a bearer token');
    }
    if (access !== 'allowed') {
      const answer = failure(401, 'missing or wrong admin token');
      return { ...answer, headers: { 'www-authenticate': 'Bearer' } };
    }
    if (!this.#actions.isStarting()) return undefined;
    return { ...failure(503, 'the gateway is still starting'), headers: { 'retry-after': '1' } };
  }
}

/** Elsewhere Node has no `reusePort`; there a process cannot take over, and says so. */
const canShare = process.platform === 'linux';

function listenOn(server: NetServer, host: string, port: number, shared: boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    const refuse = ({ code }: NodeJS.ErrnoException): void =>
      reject(new ListenError('admin', host, port, code));
    server.once('error', refuse);
    server.listen({ host, port, reusePort: shared }, () => {
      server.off('error', refuse);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

async function readJson(req: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of req as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bodyBytesMax) throw new AdminError(413, 'the body is too large');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new AdminError(400, 'the body is not JSON');
  }
}

function send(req: IncomingMessage, res: ServerResponse, answer: Answer): void {
  res.writeHead(answer.status, {
    'content-type': answer.type,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...answer.headers,
  });
  res.end(req.method === 'HEAD' ? undefined : answer.body);
}
