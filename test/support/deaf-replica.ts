/**
 * A replica that can stop taking connections: its process sleeps and its accept queue is full, so a
 * connection to it stays in its handshake. It counts the requests that reach it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** Answers GET as a healthy replica; /posts tells how many other requests came. */
const program = `
let posts = 0;
const server = require('node:http').createServer((req, res) => {
  if (req.method !== 'GET') posts++;
  res.setHeader('connection', 'close');
  res.end(String(posts));
});
server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port));
`;

/** A loopback handshake takes far less; the queue is full when one takes this long. */
const handshakeMs = 300;
const fillersMax = 16;

export class DeafReplica {
  readonly port: number;
  readonly #child: ChildProcess;
  #fillers: Socket[] = [];

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(): Promise<DeafReplica> {
    const child = spawn(process.execPath, ['-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (child.stdout === null) throw new Error('no pipe');
    const [port] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    return new DeafReplica(child, Number(port));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** From here on connections are neither accepted nor refused. */
  async deafen(): Promise<void> {
    this.#child.kill('SIGSTOP');
    while (this.#fillers.length < fillersMax) {
      const filler = connect(this.port, '127.0.0.1');
      filler.on('error', () => {});
      this.#fillers.push(filler);
      const connected = once(filler, 'connect').then(() => true);
      const late = new Promise<boolean>((resolve) => setTimeout(resolve, handshakeMs, false));
      if (!(await Promise.race([connected, late]))) return;
    }
    throw new Error('the accept queue never filled');
  }

  /** Serves again; resolves to the number of requests that have come, other than GET. */
  async wake(): Promise<number> {
    for (const filler of this.#fillers) filler.destroy();
    this.#fillers = [];
    this.#child.kill('SIGCONT');
    const response = await fetch(`${this.url}/posts`);
    return Number(await response.text());
  }

  async close(): Promise<void> {
    for (const filler of this.#fillers) filler.destroy();
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}
