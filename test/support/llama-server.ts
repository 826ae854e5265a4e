/** A llama.cpp server as a process of its own: a real engine behind the gateway. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { freePort } from './free-port.ts';
import { eventually } from './until.ts';

export interface LlamaServer {
  readonly url: string;
  /** Slots that work on a request at this moment. */
  busySlots(): Promise<number>;
  close(): Promise<void>;
}

export interface LlamaServerOptions {
  /** Name in `/v1/models` and in answers. */
  readonly name: string;
  readonly flags?: readonly string[];
  /** It answers nobody without it, but for /health. */
  readonly key?: string;
}

/** Starts the engine that `npm run test:engine` has built; resolves when it has loaded its model. */
export async function llamaServer(options: LlamaServerOptions): Promise<LlamaServer> {
  const { name, flags = [], key } = options;
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const server = fromEnv('SLUICE_TEST_ENGINE');
  const model = ['-m', fromEnv('SLUICE_TEST_MODEL'), '-a', name];
  const where = ['--host', '127.0.0.1', '--port', `${port}`];
  // One computing thread, four slots of 2,048 tokens.
  const size = ['-t', '1', '-np', '4', '-c', '8192', '--no-warmup', '--slots'];
  const guarded = key === undefined ? [] : ['--api-key', key];
  const child = spawn(server, [...model, ...where, ...size, ...guarded, ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(-4000);
  });
  const exited = once(child, 'exit');
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const isReady = async (): Promise<boolean> => {
    if (isOver()) throw new Error(`the engine ended early: ${said}`);
    return fetch(`${url}/health`).then(
      ({ status }) => status === 200,
      () => false,
    );
  };
  const close = async (): Promise<void> => {
    if (!isOver()) child.kill('SIGKILL');
    await exited;
  };
  try {
    await eventually('the engine is ready', isReady, 20_000);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    url,
    busySlots: async () => {
      const headers = { authorization: `Bearer ${key}` };
      const response = await fetch(`${url}/slots`, { headers });
      const slots = (await response.json()) as { is_processing: boolean }[];
      return slots.filter(({ is_processing }) => is_processing).length;
    },
    close,
  };
}

function fromEnv(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run npm run test:engine`);
  return value;
}
