import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ThreadCpu } from '../../../src/gateway/thread-cpu.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-thread-cpu-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const read = (cpu: ThreadCpu): Record<string, number> => Object.fromEntries(cpu.read());

describe('by the files of the system', () => {
  const thread = (id: number, name: string, user: number, system = 0): void => {
    mkdirSync(join(folder, String(id)), { recursive: true });
    const behind = `S 1 1 1 0 -1 4194368 30 0 0 0 ${user} ${system} 7 7 20 0 9 0 503 313 38`;
    writeFileSync(join(folder, String(id), 'stat'), `${id} (${name}) ${behind}\n`);
  };
  const gone = (id: number): void => rmSync(join(folder, String(id)), { recursive: true });

  test('adds user and system time, by the names we gave; everything else is other', () => {
    thread(10, 'node', 150, 50);
    thread(11, 'scheduler', 100, 1);
    thread(12, 'acceptor-0', 20);
    thread(13, 'acceptor-1', 30);
    thread(14, 'a) S 1 (', 3);
    thread(15, 'tokenizer', 4);
    thread(16, 'tokenizer', 5);
    thread(17, 'forwarder-12345', 6);
    expect(read(new ThreadCpu(folder, '10'))).toEqual({
      ...{ main: 2, scheduler: 1.01, 'acceptor-0': 0.2, 'acceptor-1': 0.3, tokenizer: 0.09 },
      other: 0.09,
    });
  });

  test('no total falls when a thread dies, is renamed or gets a number again', () => {
    const cpu = new ThreadCpu(folder, '10');
    thread(11, 'forwarder-0', 200);
    thread(12, 'node', 40);
    expect(read(cpu)).toEqual({ 'forwarder-0': 2, other: 0.4 });
    gone(11);
    thread(12, 'forwarder-0', 50); // its successor, seen before it had its name
    expect(read(cpu)).toEqual({ 'forwarder-0': 2.1, other: 0.4 });
    gone(12);
    expect(read(cpu)).toEqual({ 'forwarder-0': 2.1, other: 0.4 });
    thread(11, 'forwarder-0', 30);
    expect(read(cpu)['forwarder-0']).toBeCloseTo(2.4, 9);
    thread(11, 'scheduler', 10);
    expect(read(cpu)).toMatchObject({ scheduler: 0.1 });
  });

  test('says nothing of what cannot be read', () => {
    mkdirSync(join(folder, '11'));
    mkdirSync(join(folder, '12'));
    writeFileSync(join(folder, '12', 'stat'), 'nonsense');
    expect(read(new ThreadCpu(folder, '10'))).toEqual({});
    expect(read(new ThreadCpu(join(folder, 'none'), '10'))).toEqual({});
  });
});

test.skipIf(process.platform !== 'linux')(
  'by the system itself: the thread that works (skipped where there is no /proc)',
  async () => {
    const cpu = new ThreadCpu();
    const before = read(cpu);
    const source = `
      const { writeFileSync } = require('node:fs');
      writeFileSync('/proc/thread-self/comm', 'scheduler');
      const start = process.cpuUsage();
      for (;;) { const c = process.cpuUsage(start); if (c.user + c.system > 400000) break; }
      require('node:worker_threads').parentPort.postMessage('done');
      require('node:worker_threads').parentPort.once('message', () => {});`;
    const worker = new Worker(source, { eval: true });
    await new Promise((resolve) => worker.once('message', resolve));
    const after = read(cpu);
    await worker.terminate();
    expect((after.scheduler ?? 0) - (before.scheduler ?? 0)).toBeGreaterThan(0.1);
    const all = Object.values(after).reduce((sum, seconds) => sum + seconds, 0);
    const { user, system } = process.cpuUsage();
    expect(all).toBeLessThanOrEqual((user + system) / 1e6 + 0.5);
  },
);
