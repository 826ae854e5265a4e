import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { LoadReport } from '../../src/load/report.ts';

const command = new URL('../../src/cli/bench.ts', import.meta.url).href;
const server = createServer((request, response) => {
  request.resume();
  request.on('end', () => {
    response.setHeader('content-type', 'text/event-stream');
    response.write('data: {"choices":[{"delta":{"content":"a"}}]}\n\n');
    response.end('data: [DONE]\n\n');
  });
});
let target = '';

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

async function bench(...args: readonly string[]) {
  const script = `const { benchCommand } = await import(${JSON.stringify(command)});
    await benchCommand().parseAsync(process.argv.slice(1), { from: 'user' });`;
  const child = spawn('node', ['--input-type=module', '--eval', script, '--', ...args]);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { code, stdout, stderr };
}

test('prints JSON with --json and exits 0 when all answers were complete', async () => {
  const run = await bench('--target', target, '--stream', '--num-prompts', '50', '--json');
  expect(run.stderr).toBe('');
  const report: LoadReport = JSON.parse(run.stdout);
  expect(report).toMatchObject({ completed: 50, failed: 0 });
  expect(run.code).toBe(0);
});

test('prints a table without --json', async () => {
  const run = await bench('--target', target, '--stream', '--num-prompts', '20');
  expect(run.stdout).toMatch(/20 completed, 0 failed$/m);
  expect(run.stdout).toMatch(/^ttft( +\d+\.\d\d){7}$/m);
  expect(run.stdout).toMatch(/^e2el( +\d+\.\d\d){7}$/m);
  // One token per answer: there are no gaps to show.
  expect(run.stdout).not.toMatch(/^itl/m);
});

test('names how answers failed and exits 1', async () => {
  const run = await bench('--target', target, '--num-prompts', '10', '--connections', '2');
  expect(run.stdout).toMatch(/0 completed, 10 failed \(mismatch 10\)/);
  expect(run.stdout).not.toMatch(/^e2el/m);
  expect(run.code).toBe(1);
});

test('a dead target is named by its errno, and no figures are doubted', async () => {
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(0, '127.0.0.1', resolve));
  const { port } = dead.address() as AddressInfo;
  await new Promise((resolve) => dead.close(resolve));
  const run = await bench('--target', `http://127.0.0.1:${port}`, '--num-prompts', '10');
  expect(run.stdout).toMatch(/0 completed, 10 failed \(connect 10: ECONNREFUSED\)/);
  expect(run.stdout).not.toContain('saturated');
  expect(run.code).toBe(1);
});

test.each([
  ['https://127.0.0.1:1', '10', 'expected a URL such as'],
  ['http://127.0.0.1:1', 'many', 'expected a whole number'],
])('target %s with count %s is refused before any load', async (url, prompts, message) => {
  const run = await bench('--target', url, '--num-prompts', prompts);
  expect(run.code).not.toBe(0);
  expect(run.stderr).toContain(message);
});
