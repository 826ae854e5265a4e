/** Clients that come again and again until they are stopped, and count how each visit ended. */
import http, { Agent } from 'node:http';
import type { Socket } from 'node:net';
import { expect } from 'vitest';
import type { GatewayProcess } from './gateway.ts';
import { chatBody, chatPath } from './scenario.ts';

const host = '127.0.0.1';

export interface KnockPlan {
  /** Clients with a new connection for each request. */
  readonly fresh?: number;
  /** Clients that keep theirs for as long as they may. */
  readonly kept?: number;
}

export class Knocking {
  /** How often a visit ended so: a status, or what broke it. */
  readonly #ends = new Map<string, number>();
  readonly #clients: Promise<void>[];
  #isOver = false;

  constructor(gateway: GatewayProcess, { fresh = 0, kept = 0 }: KnockPlan) {
    const port = gateway.port;
    const adminPort = Number(new URL(gateway.adminUrl).port);
    this.#clients = [
      ...Array.from({ length: fresh }, () => this.#chat(port, new Agent())),
      ...Array.from({ length: kept }, () =>
        this.#chat(port, new Agent({ keepAlive: true, maxSockets: 1 })),
      ),
      this.#again('ready', { host, port: adminPort, path: '/readyz', agent: new Agent() }),
    ];
  }

  /**
   * Resolves once all visits are over with what was lost. It fails when that was more than connections
   * that were new: nothing may be answered badly, and no kept connection may break.
   */
  async stop(): Promise<string[]> {
    this.#isOver = true;
    await Promise.all(this.#clients);
    expect(this.#ends.get('chat 200')).toBeGreaterThan(0);
    const lost = [...this.#ends.keys()].filter((end) => !end.endsWith(' 200'));
    for (const end of lost) expect(end).toMatch(/ fresh ECONNRESET$/);
    return lost;
  }

  #chat(port: number, agent: Agent): Promise<void> {
    const { options, body } = chat(port, agent);
    return this.#again('chat', options, body).finally(() => agent.destroy());
  }

  async #again(name: string, options: http.RequestOptions, body = ''): Promise<void> {
    while (!this.#isOver) {
      const end = await visit(options, body);
      const key = `${name} ${end}`;
      this.#ends.set(key, (this.#ends.get(key) ?? 0) + 1);
    }
  }
}

/** The request of all of them. */
function chat(port: number, agent: Agent) {
  const body = JSON.stringify(chatBody('x [[len=1]]', { max_tokens: 1 }));
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  return { options: { host, port, path: chatPath, method: 'POST', agent, headers }, body };
}

/** The status of a whole answer, else what broke it. */
function visit(options: http.RequestOptions, body: string): Promise<string> {
  return new Promise((resolve) => {
    const request = http.request(options, (response) => {
      response.resume();
      response.on('error', (error: NodeJS.ErrnoException) => resolve(`answer ${error.code}`));
      response.on('end', () => resolve(String(response.statusCode)));
    });
    request.on('error', (error: NodeJS.ErrnoException) => {
      resolve(`${request.reusedSocket ? 'kept' : 'fresh'} ${error.code}`);
    });
    request.end(body);
  });
}

/** One client that keeps its connection for as long as the answers let it. */
export class KeptClient {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #sockets = new Set<Socket>();
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  /** How many it has had. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** `closes`: the answer says that its connection does. Rejects when the request breaks. */
  ask(): Promise<{ status: number; closes: boolean }> {
    const { options, body } = chat(this.#port, this.#agent);
    return new Promise((resolve, reject) => {
      const request = http.request(options, (response) => {
        const { statusCode: status = 0, headers } = response;
        const answer = { status, closes: headers.connection === 'close' };
        response.on('end', () => resolve(answer)).resume();
      });
      request.on('socket', (socket) => this.#sockets.add(socket));
      request.on('error', reject);
      request.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}
