/**
 * A server that has the APIs of replicas under paths of its own, as hosted providers do, and nothing
 * elsewhere. It remembers what it was asked for, and passes bytes on as they come.
 */
import { request as ask, createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Mount {
  /** Of the replica. */
  readonly url: string;
  /** In place of its `/v1`. */
  readonly api: string;
  /** Before its paths outside that. */
  readonly root: string;
}

export class MountedReplicas {
  /** Method and path of every request. */
  readonly asked: string[] = [];
  readonly #server: Server;

  constructor(mounts: readonly Mount[]) {
    this.#server = createServer((incoming, response) => {
      const { method = '', url: target = '', headers } = incoming;
      this.asked.push(`${method} ${target}`);
      const at = targetOf(mounts, target);
      if (at === undefined) {
        incoming.resume();
        response.writeHead(404).end();
        return;
      }
      const passed = ask(at, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      passed.on('error', () => response.destroy());
      response.on('close', () => passed.destroy());
      incoming.pipe(passed);
    });
  }

  /** Resolves with its origin. */
  listen(): Promise<string> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => {
        resolve(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`);
      });
    });
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** What a replica has beside `/v1`. */
const outside = /^\/(?:metrics|tokenize)$/;

function targetOf(mounts: readonly Mount[], target: string): string | undefined {
  for (const { url, api, root } of mounts) {
    const rest = target.startsWith(`${root}/`) ? target.slice(root.length) : '';
    if (outside.test(rest)) return url + rest;
    if (target.startsWith(`${api}/`)) return `${url}/v1${target.slice(api.length)}`;
  }
  return undefined;
}
