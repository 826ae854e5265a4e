/**
 * Processes a benchmark starts: each is ended by its own pid, in `stopAll`, which the caller runs in
 * `finally` and on a signal. What a child prints is kept (bounded) and shown when it fails to start.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { get } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';

export interface Child {
  readonly name: string;
  readonly pid: number;
  stop(): Promise<void>;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Polled until it answers 200; the child is ready then. */
  readonly readyUrl: string;
  /** The child starts others of its own: it leads a process group and signals go to all of it. */
  readonly group?: boolean;
  readonly stopSignal?: NodeJS.Signals;
  /** How long it may take to end before it is killed. */
  readonly stopMs?: number;
}

const readyMs = 20_000;
const stopMsDefault = 5_000;
const outputCharsMax = 16_384;

export class Children {
  readonly #running = new Map<ChildProcess, ChildOptions>();

  async start(
    name: string,
    command: string,
    args: readonly string[],
    options: ChildOptions,
  ): Promise<Child> {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: options.group === true,
      env: { ...process.env, ...options.env },
    });
    this.#running.set(child, options);
    let output = '';
    const keep = (text: string) => {
      output = (output + text).slice(-outputCharsMax);
    };
    child.stdout.setEncoding('utf8').on('data', keep);
    child.stderr.setEncoding('utf8').on('data', keep);
    child.on('error', (error) => keep(error.message));
    child.on('close', () => this.#running.delete(child));
    try {
      await this.#ready(child, options.readyUrl);
    } catch (error) {
      await this.#end(child);
      throw new Error(`${name} did not start: ${(error as Error).message}\n${output}`);
    }
    return { name, pid: child.pid as number, stop: () => this.#end(child) };
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((child) => this.#end(child)));
  }

  /** For the moment of our own exit, when nothing can be awaited any more. */
  killAll(): void {
    for (const [child, options] of this.#running) signal(child, options, 'SIGKILL');
  }

  async #ready(child: ChildProcess, url: string): Promise<void> {
    const deadline = performance.now() + readyMs;
    while (performance.now() < deadline) {
      if (child.exitCode !== null || child.pid === undefined) throw new Error('it exited');
      if ((await statusOf(url)) === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`${url} was not 200 within ${readyMs / 1000} s`);
  }

  async #end(child: ChildProcess): Promise<void> {
    const options = this.#running.get(child);
    if (options === undefined) return;
    const closed = new Promise((resolve) => child.once('close', resolve));
    signal(child, options, options.stopSignal ?? 'SIGTERM');
    const stopMs = options.stopMs ?? stopMsDefault;
    const limit = setTimeout(() => signal(child, options, 'SIGKILL'), stopMs);
    await closed;
    clearTimeout(limit);
  }
}

function signal(child: ChildProcess, options: ChildOptions, name: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  if (options.group !== true) child.kill(name);
  else if (child.exitCode === null) process.kill(-child.pid, name);
}

function statusOf(url: string): Promise<number> {
  return new Promise((resolve) => {
    const request = get(url, { agent: false, timeout: 1000 }, (response) => {
      response.resume();
      response.on('close', () => resolve(response.statusCode ?? 0));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(0));
  });
}

/** Body of a GET; throws on anything but 200. */
export async function fetchText(url: string): Promise<string> {
  const response = await fetch(url);
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}: ${text}`);
  return text;
}

/** Distinct free loopback ports: all are held before the first is given back. */
export async function freePorts(count: number): Promise<number[]> {
  const servers: Server[] = [];
  for (let i = 0; i < count; i++) {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    servers.push(server);
  }
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}
