/** The logger over real descriptors: files, pipes that nobody reads, broken pipes, a full disk. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nowMs } from '../../../src/lib/clock.ts';
import { createLogger, type Logger } from '../../../src/telemetry/log.ts';

const { O_APPEND, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;
const access = { rate: 1, slowMs: 10_000 };
const isLinux = process.platform === 'linux';
/** What a line costs here, about; enough of them overflow the buffer of 1 MiB. */
const linesToOverflow = 20_000;

let folder: string;
let dropped: number;
const open: number[] = [];
const loggers: Logger[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-log-'));
  dropped = 0;
});
afterEach(async () => {
  await Promise.all(loggers.splice(0).map((logger) => logger.close(100)));
  for (const fd of open.splice(0)) closeSync(fd);
  rmSync(folder, { recursive: true });
});

function openFd(path: string, flags: number): number {
  const fd = openSync(path, flags, 0o600);
  open.push(fd);
  return fd;
}

function fifo(): string {
  const path = join(folder, 'pipe');
  execFileSync('/usr/bin/mkfifo', [path]);
  return path;
}

function logTo(fd: number, thread = 'test'): Logger {
  const onDrop = (lines: number): void => {
    dropped += lines;
  };
  const logger = createLogger({ thread, level: 'info', pretty: false, access, onDrop, fd });
  loggers.push(logger);
  return logger;
}

function logLines(logger: Logger, count: number): void {
  for (let i = 0; i < count; i++)
    logger.info('a line about a request', { req_id: `id-${i}`, count: i });
}

/** Reads what a pipe holds right now. */
function drain(fd: number): string {
  const chunk = Buffer.alloc(65_536);
  let text = '';
  try {
    for (;;) text += chunk.toString('latin1', 0, readSync(fd, chunk));
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
    return text;
  }
}

interface Line {
  readonly ts: string;
  readonly level: string;
  readonly thread: string;
  readonly msg: string;
  readonly count: number;
}
const parseLines = (text: string): Line[] =>
  text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);

describe('to a file', () => {
  test('each line is JSON with the fields of the allow-list, in order of writing', async () => {
    const path = join(folder, 'log');
    const logger = logTo(openFd(path, O_WRONLY | O_CREAT | O_APPEND));
    logLines(logger, 5000);
    logger.debug('below the level');
    logger.level = 'debug';
    logger.debug('at the level');
    await logger.flush();
    const lines = parseLines(readFileSync(path, 'utf8'));
    expect(lines.length + dropped).toBe(5001);
    expect(dropped).toBe(0);
    expect(lines.slice(0, -1).map((line) => line.count)).toEqual(
      lines.slice(0, -1).map((_, i) => i),
    );
    expect(lines.at(-1)).toMatchObject({ level: 'debug', thread: 'test', msg: 'at the level' });
    expect(Object.keys(lines[0]!)).toEqual(['level', 'ts', 'thread', 'req_id', 'count', 'msg']);
    expect(Math.abs(Date.now() - Date.parse(lines[0]!.ts))).toBeLessThan(60_000);
  });

  test('an access line is an error, a warning or nothing special by its outcome', async () => {
    const path = join(folder, 'log');
    const logger = logTo(openFd(path, O_WRONLY | O_CREAT | O_APPEND));
    const record = { req_id: 'a', e2e_ms: 5, failed: false, prompt: 'secret', key: 'sk-secret' };
    logger.access({ ...record, status: 200 });
    logger.access({ ...record, status: 429 });
    logger.access({ ...record, status: 502 });
    logger.access({ ...record, status: 200, failed: true });
    await logger.flush();
    const text = readFileSync(path, 'utf8');
    expect(parseLines(text).map((line) => line.level)).toEqual(['info', 'warn', 'error', 'error']);
    expect(text).not.toContain('secret');
  });

  test('a line appears within a second without a flush', async () => {
    const path = join(folder, 'log');
    logTo(openFd(path, O_WRONLY | O_CREAT | O_APPEND)).info('alone');
    const limit = nowMs() + 1000;
    while (readFileSync(path).length === 0 && nowMs() < limit) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(parseLines(readFileSync(path, 'utf8'))).toHaveLength(1);
  });
});

describe('to a pipe', () => {
  test('that nobody reads, lines are dropped and counted, and the rest comes out whole', async () => {
    const path = fifo();
    const reader = openFd(path, O_RDWR | O_NONBLOCK);
    const logger = logTo(openFd(path, O_WRONLY));
    const start = nowMs();
    logLines(logger, linesToOverflow);
    expect(nowMs() - start).toBeLessThan(5000);
    expect(dropped).toBeGreaterThan(0);
    const flushed = logger.flush().then(() => true);
    let text = '';
    while (!(await Promise.race([flushed, new Promise((go) => setTimeout(go, 5, false))]))) {
      text += drain(reader);
    }
    text += drain(reader);
    expect(parseLines(text).length + dropped).toBe(linesToOverflow);
  });

  test('that has no reader, every line is dropped and counted, and none throws', async () => {
    const path = fifo();
    const reader = openSync(path, O_RDONLY | O_NONBLOCK);
    const logger = logTo(openFd(path, O_WRONLY));
    closeSync(reader);
    for (let burst = 0; burst < 3; burst++) {
      logLines(logger, 100);
      await logger.flush();
    }
    expect(dropped).toBe(300);
  });

  test('lines of two loggers never mix, though the pipe is full all the time', async () => {
    const path = fifo();
    const reader = openFd(path, O_RDWR | O_NONBLOCK);
    const pair = ['one', 'two'].map((thread) => logTo(openFd(path, O_WRONLY), thread));
    for (const logger of pair) logLines(logger, 2000);
    const flushed = Promise.all(pair.map((logger) => logger.flush())).then(() => true);
    let text = '';
    while (!(await Promise.race([flushed, new Promise((go) => setTimeout(go, 1, false))]))) {
      text += drain(reader);
    }
    const lines = parseLines(text + drain(reader));
    expect(lines).toHaveLength(4000);
    for (const thread of ['one', 'two']) {
      const counts = lines.filter((line) => line.thread === thread).map((line) => line.count);
      expect(counts).toEqual(Array.from({ length: 2000 }, (_, i) => i));
    }
  });

  test('that stays full, close gives up after its limit and counts what is lost', async () => {
    const path = fifo();
    const reader = openFd(path, O_RDWR | O_NONBLOCK);
    const logger = logTo(openFd(path, O_WRONLY));
    logLines(logger, 5000);
    const start = nowMs();
    await logger.close(200);
    expect(nowMs() - start).toBeLessThan(2000);
    logger.info('too late');
    expect(parseLines(drain(reader)).length + dropped).toBe(5001);
    expect(dropped).toBeGreaterThan(1);
  });
});

test.skipIf(!isLinux)(
  'on a full disk lines are dropped and counted (needs /dev/full)',
  async () => {
    const logger = logTo(openFd('/dev/full', O_WRONLY));
    logLines(logger, 1000);
    await logger.flush();
    expect(dropped).toBe(1000);
  },
);

describe('at exit', () => {
  const program = `
    const { createLogger } = await import(${JSON.stringify(new URL('../../../src/telemetry/log.ts', import.meta.url).href)});
    const logger = createLogger({ thread: 't', level: 'info', pretty: false, onDrop() {},
      access: { rate: 1, slowMs: 1 } });
    for (let i = 0; i < Number(process.argv[1]); i++) logger.info('line', { count: i });
    process.exit(3);`;
  const args = (lines: number): string[] => ['--input-type=module', '-e', program, String(lines)];

  test('buffered lines are written', () => {
    const { stdout, status } = spawnSync(process.execPath, args(300));
    expect(status).toBe(3);
    expect(parseLines(stdout.toString()).map((line) => line.count)).toEqual(
      Array.from({ length: 300 }, (_, i) => i),
    );
  });

  test('the lines of a thread that ends are written', () => {
    const worker = program.replace('process.exit(3);', '');
    const start = `new (require('node:worker_threads').Worker)(
      new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)})),
      { argv: ['20'] });`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', start]);
    expect(stderr.toString()).toBe('');
    expect(parseLines(stdout.toString())).toHaveLength(20);
  });

  test('a socket that nobody reads does not keep the process', async () => {
    const child = spawn(process.execPath, args(5000), { stdio: ['ignore', 'pipe', 'ignore'] });
    const [code] = await once(child, 'exit'); // stdout, a socket pair, is not read before
    expect(code).toBe(3);
    child.stdout.destroy();
  });

  test('a pipe that nobody reads does not keep the process', async () => {
    const path = fifo();
    const reader = openFd(path, O_RDWR | O_NONBLOCK); // not given away: a spawn makes it blocking
    const writer = openFd(path, O_WRONLY);
    const child = spawn(process.execPath, args(5000), { stdio: ['ignore', writer, 'ignore'] });
    expect(await once(child, 'exit')).toEqual([3, null]);
    const lines = parseLines(drain(reader));
    expect(lines.map((line) => line.count)).toEqual(lines.map((_, i) => i));
    expect(lines.length).toBeGreaterThan(100);
  });

  test('a broken pipe does not keep the process', async () => {
    const child = spawn(process.execPath, args(300), { stdio: ['ignore', 'pipe', 'ignore'] });
    child.stdout.destroy();
    const [code] = await once(child, 'exit');
    expect(code).toBe(3);
  });
});
