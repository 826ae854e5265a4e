/**
 * Ports to be bound later, out of a range from which no outgoing connection takes one (Linux gives
 * those 32768 and up), a part of it for each worker.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';

const first = 18_000;
const perWorker = 1500;
const workers = 8;
let taken = Math.floor(Math.random() * perWorker);

/** A port nobody listens on; another process may take it, which whoever binds it then says. */
export async function freePort(): Promise<number> {
  const worker = Number(process.env.VITEST_POOL_ID ?? 0) % workers;
  for (let tries = 0; tries < perWorker; tries++) {
    const port = first + worker * perWorker + (taken++ % perWorker);
    if (await isFree(port)) return port;
  }
  throw new Error('no port');
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
