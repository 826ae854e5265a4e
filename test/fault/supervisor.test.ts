/** The parent process: restarts, back-off, signals, its own death. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { mainFile } from '../../scripts/bench/program.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import { nowMs } from '../../src/lib/clock.ts';
import type { Replica } from '../../src/replica/replica.ts';
import {
  type GatewayOptions,
  type GatewayProcess,
  gatewayProcess,
  withGateway,
} from '../support/gateway.ts';
import { isAlive } from '../support/pids.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  openStream,
  post,
  type Reading,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';

const profile = 'tokens:ttft=5ms,itl=20ms';
const prompt = 'nonce=n [[len=50]]';
const longPrompt = 'nonce=n [[len=2000]]';

function withSupervised<T>(
  options: Omit<GatewayOptions, 'config'> & { config?: Omit<ConfigInput, 'models'> },
  use: (gateway: GatewayProcess, replica: Replica) => Promise<T>,
): Promise<T> {
  return withReplicas(1, { profile }, ([replica]) =>
    withGateway(
      { ...options, supervisor: true, config: configOf([replica!], options.config) },
      (gateway) => use(gateway, replica!),
    ),
  );
}

async function startedStream(gateway: GatewayProcess, text = prompt): Promise<Reading> {
  const reading = await openStream(gateway.url, chatBody(text, { max_tokens: 5000 }));
  await reading.until((received) => received.includes(':0:'));
  return reading;
}

async function ledgerOf(reading: Reading, text = prompt) {
  const { text: received } = await reading.ended;
  return readSse(new TextEncoder().encode(received), chatSeries(text));
}

test('deaths in a row are answered with longer and longer waits, which SIGTERM ends at once', async () => {
  await withSupervised({}, async (gateway) => {
    const waits = [100, 200, 400, 800, 1600, 3200];
    for (const wait of waits) {
      // Need not serve again to die again.
      await expect.poll(() => gateway.servingPid, { interval: 5 }).toBeGreaterThan(0);
      process.kill(gateway.servingPid, 'SIGKILL');
      await gateway.said(`(SIGKILL); starting it again in ${wait} ms`);
    }
    const signalled = nowMs();
    expect(await gateway.stop()).toEqual({ code: 0, signal: null });
    expect(nowMs() - signalled).toBeLessThan(waits.at(-1)!);
  });
});

test('a config that went bad meanwhile is tried again until it is mended', async () => {
  await withSupervised({}, async (gateway, replica) => {
    gateway.writeConfig('models: []\nqueue: { maxx: 1 }\n');
    process.kill(gateway.servingPid, 'SIGKILL');
    await gateway.said('(exit 2); starting it again in 200 ms');
    await gateway.said('(exit 2); starting it again in 400 ms');
    expect(gateway.output()).toMatch(/sluice\.yaml:2:10 queue\.maxx: unknown key/);
    gateway.writeConfig(configOf([replica]));
    await gateway.starts(2);
    expect((await post(gateway.url, chatBody(prompt))).status).toBe(200);
  });
});

test('SIGTERM ends the tries of a bad config', async () => {
  await withSupervised({}, async (gateway) => {
    gateway.writeConfig('models: []\n');
    process.kill(gateway.servingPid, 'SIGKILL');
    await gateway.said('(exit 2); starting it again');
    expect(await gateway.stop()).toEqual({ code: 0, signal: null });
  });
});

test('a config that was bad from the start is not tried again', async () => {
  const config = configOf([], { queue: { max: -1 } });
  await expect(gatewayProcess({ supervisor: true, config })).rejects.toMatchObject({
    exit: { code: 2, signal: null },
    output: expect.not.stringContaining('starting it again'),
  });
});

test('Ctrl-C reaches the gateway once: it drains and loses nothing', async () => {
  await withSupervised({ wrapper: ['setsid'] }, async (gateway) => {
    const reading = await startedStream(gateway);
    // What a terminal does: the signal goes to every process of the foreground group.
    process.kill(-gateway.pid, 'SIGINT');
    expect(await ledgerOf(reading)).toMatchObject({ tokens: 50, exact: true, sawDone: true });
    expect(await gateway.exited).toEqual({ code: 0, signal: null });
  });
});

test('a second Ctrl-C cuts', async () => {
  await withSupervised({ wrapper: ['setsid'] }, async (gateway) => {
    const reading = await startedStream(gateway, longPrompt);
    process.kill(-gateway.pid, 'SIGINT');
    await expect.poll(async () => (await gateway.ready()).status).toBe(503);
    const cutAt = nowMs();
    process.kill(-gateway.pid, 'SIGINT');
    const ledger = await ledgerOf(reading, longPrompt);
    expect(nowMs() - cutAt).toBeLessThan(1000);
    expect(ledger).toMatchObject({ exact: true, sawDone: false });
    expect(ledger.errors).toMatchObject([{ code: 'shutting_down' }]);
    expect(await gateway.exited).toEqual({ code: 0, signal: null });
  });
});

test('SIGTERM to the supervisor drains the gateway and nobody is started again', async () => {
  await withSupervised({}, async (gateway) => {
    const serving = gateway.servingPid;
    const reading = await startedStream(gateway);
    const exit = gateway.stop();
    expect(await ledgerOf(reading)).toMatchObject({ tokens: 50, exact: true, sawDone: true });
    expect(await exit).toEqual({ code: 0, signal: null });
    expect(isAlive(serving)).toBe(false);
    expect(gateway.output()).not.toContain('starting it again');
  });
});

test('a gateway whose supervisor is killed drains and goes', async () => {
  await withSupervised({}, async (gateway) => {
    const serving = gateway.servingPid;
    const reading = await startedStream(gateway);
    gateway.kill('SIGKILL');
    expect(await ledgerOf(reading)).toMatchObject({ tokens: 50, exact: true, sawDone: true });
    await expect.poll(() => isAlive(serving), { timeout: 5000 }).toBe(false);
  });
});

test('a gateway that cannot start is not started again', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const config = configOf([{ url: 'http://127.0.0.1:1' }], { listen: { port } });
  await expect(gatewayProcess({ supervisor: true, config })).rejects.toMatchObject({
    exit: { code: 1, signal: null },
    output: expect.not.stringContaining('starting it again'),
  });
  await new Promise((resolve) => server.close(resolve));
});

test('SIGTERM while the gateway is still starting is obeyed', async () => {
  const flags = ['--replica', 'http://127.0.0.1:1', '--model', 'm', '--port', '0'];
  const child = spawn(process.execPath, [mainFile, 'serve', ...flags, '--admin-port', '0'], {
    stdio: 'ignore',
  });
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const children = (): string =>
    readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
  await expect.poll(children, { interval: 5, timeout: 10_000 }).not.toBe('');
  const serving = Number(children());
  child.kill('SIGTERM');
  expect(await exited).toEqual({ code: 0, signal: null });
  expect(isAlive(serving)).toBe(false);
});
