/** T28 and T29: many connections, idle or at the descriptor limit, cost neither service nor CPU. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { chat, post } from '../support/acceptor-wire.ts';
import { RawClient, rawRequest } from '../support/raw-client.ts';

const entry = new URL('../support/acceptor-process.ts', import.meta.url).pathname;
const tickMs = 10; // USER_HZ is 100 on every Linux we run on

let child: ChildProcess | undefined;
let clients: RawClient[] = [];
afterEach(async () => {
  for (const client of clients) await client.close();
  clients = [];
  const exited = child === undefined ? undefined : once(child, 'exit');
  child?.stdin?.end();
  await exited;
});

async function startProcess(engine: string, cap: number, descriptors: number): Promise<number> {
  const limit = [`--nofile=${descriptors}:${descriptors}`, process.execPath];
  const flags = ['--experimental-strip-types', '--no-warnings', entry, engine, String(cap)];
  child = spawn('prlimit', [...limit, ...flags], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  return Number(line.toString());
}

/** Share of one core that the process used while `during` ran. */
async function cpuShare(during: () => Promise<void>): Promise<number> {
  const used = (): number => {
    const fields = readFileSync(`/proc/${child!.pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) * tickMs;
  };
  const startedMs = performance.now();
  const before = used();
  await during();
  return (used() - before) / (performance.now() - startedMs);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function connectMany(port: number, count: number): Promise<() => number> {
  clients = await Promise.all(Array.from({ length: count }, () => RawClient.connect(port)));
  let closed = 0;
  for (const client of clients) void client.closed.then(() => closed++);
  return () => closed;
}

async function served(port: number): Promise<number | undefined> {
  return (await rawRequest(port, post(chat()))).responses[0]?.status;
}

const isLinux = process.platform === 'linux';

describe.runIf(isLinux).each(['uws', 'node'] as const)('descriptors, engine %s', (engine) => {
  test('T28: 200 connections above the cap are closed, the rest idles without CPU', async () => {
    const port = await startProcess(engine, 100, 4096);
    // What the process takes with nobody connected: of the test's own bells, on this machine, now.
    const alone = await cpuShare(() => pause(1500));
    const closed = await connectMany(port, 300);
    while (closed() < 200) await pause(5);
    expect(closed()).toBe(200);
    const share = await cpuShare(() => pause(1500));
    expect(share - alone, 'of one core, for 100 idle connections').toBeLessThan(0.05);
  });

  test('T29: at the descriptor limit it sheds, does not spin, and recovers', async () => {
    const port = await startProcess(engine, 10_000, 160);
    const first = await RawClient.connect(port);
    await first.send(post(chat()));
    expect((await first.responses(1)).responses[0]!.status).toBe(200);
    const closed = await connectMany(port, 300);
    while (closed() < 150) await pause(5);
    const open = readdirSync(`/proc/${child!.pid}/fd`).length;
    expect(open).toBeGreaterThan(100);
    expect(open).toBeLessThan(160);
    const share = await cpuShare(() => pause(1500));
    expect(share).toBeLessThan(0.2);
    await first.send(post(chat()));
    expect((await first.responses(2)).responses[1]!.status).toBe(200);
    for (const client of clients) await client.close();
    clients = [first];
    let status = await served(port);
    while (status === undefined) status = await served(port);
    expect(status).toBe(200);
  });
});
