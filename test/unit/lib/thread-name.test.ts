import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';

const file = new URL('../../../src/lib/thread-name.ts', import.meta.url).href;

test.runIf(process.platform === 'linux')('a thread is named, and no other one', async () => {
  const before = readFileSync('/proc/self/comm', 'utf8');
  const code = `
    const { parentPort } = require('node:worker_threads');
    import(${JSON.stringify(file)}).then(({ nameThread }) => {
      nameThread('a-name-that-is-too-long');
      parentPort.postMessage(require('node:fs').readFileSync('/proc/thread-self/comm', 'utf8'));
    });`;
  const worker = new Worker(code, { eval: true });
  const name = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  expect(name).toBe('a-name-that-is-\n');
  expect(readFileSync('/proc/self/comm', 'utf8')).toBe(before);
  await worker.terminate();
});
