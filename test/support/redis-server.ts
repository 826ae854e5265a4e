/**
 * A real Redis server in a folder of its own, on loopback, that ends with the test; and a line in front of
 * one that is as slow as the test wants it.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { thisMachine } from '../../scripts/test/servers.ts';
import { freePort } from './free-port.ts';
import { eventually } from './until.ts';

export const hasRedis = thisMachine.has('redis-server');
/** Built with TLS, as Debian's is. */
export const hasRedisTls =
  hasRedis && spawnSync('redis-cli', ['--help'], { encoding: 'utf8' }).stdout.includes('--tls');
export const hasSentinel = thisMachine.has('redis-sentinel');

export class RedisServer {
  readonly port: number;
  readonly #args: readonly string[];
  readonly #folder: string;
  #child: ChildProcess | undefined;

  private constructor(port: number, folder: string, args: readonly string[]) {
    this.port = port;
    this.#folder = folder;
    this.#args = args;
  }

  /** `args` as on its command line; `sentinel`: the text of its file. */
  static async start({ args = [] as readonly string[], sentinel = '' } = {}): Promise<RedisServer> {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-redis-'));
    const port = await freePort();
    const file = join(folder, 'sentinel.conf');
    if (sentinel !== '') writeFileSync(file, sentinel);
    const server = new RedisServer(port, folder, sentinel === '' ? args : [file, '--sentinel']);
    await server.startAgain();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** At the same port, with what it had saved: nothing. */
  async startAgain(): Promise<void> {
    const own = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.#folder];
    const plain = this.#args.includes('--sentinel') ? [] : ['--save', '', '--appendonly', 'no'];
    const [first, ...rest] = this.#args;
    const args = first?.startsWith('/')
      ? [first, ...rest, ...own]
      : [...own, ...plain, ...this.#args];
    const child = spawn('redis-server', args, { stdio: 'ignore' });
    this.#child = child;
    // Also where a test that took too long never comes to its end.
    process.once('exit', () => child.kill('SIGKILL'));
    await eventually('Redis answers', () => this.cli('ping') === 'PONG');
  }

  /** What `redis-cli` prints for the command. */
  cli(...command: readonly string[]): string {
    const run = spawnSync('redis-cli', ['-p', String(this.port), ...command], { encoding: 'utf8' });
    return run.stdout.trim();
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(name);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await ended;
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Passes everything on, each way a while later. */
export class SlowLine {
  #delayMs = 0;
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async to(target: number): Promise<SlowLine> {
    const port = await freePort();
    const server = createServer();
    const line = new SlowLine(server, port);
    server.on('connection', (near) => {
      const far = dial(target, '127.0.0.1');
      line.#join(near, far);
      line.#join(far, near);
    });
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return line;
  }

  /** Milliseconds, each way. */
  setDelay(ms: number): void {
    this.#delayMs = ms;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.on('error', () => {});
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
    from.on('data', (bytes) => {
      setTimeout(() => to.destroyed || to.write(bytes), this.#delayMs);
    });
  }
}
