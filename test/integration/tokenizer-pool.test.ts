/** The tokenizer pool with real threads: answers, bounds, deaths, new files. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { afterAll, afterEach, expect, test } from 'vitest';
import { configFromObject } from '../../src/config/load.ts';
import { TokenizerPool, tokenizerProblems } from '../../src/gateway/tokenizer-pool.ts';
import { TokenizerThreads } from '../../src/gateway/tokenizer-threads.ts';
import { nowMs } from '../../src/lib/clock.ts';
import { arenaBytes } from '../../src/shm/arena.ts';
import { createMemory } from '../../src/shm/memory.ts';
import type { TokenAnswer, TokenTask } from '../../src/shm/token-tasks.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { readTokenizerFiles } from '../../src/tokenizer/files.ts';
import {
  chatMl,
  referenceOf,
  removeTokenizers,
  tokenizerFolder,
  writeTokenizer,
} from '../support/tokenizers.ts';

const minuteMs = 60_000;
const memory = createMemory({
  ...{ acceptors: 1, forwarders: 1, slots: 8 },
  ...{ arenaBytes: 1024 * 1024, responseRingBytes: 64 * 1024 },
});
const arena = arenaBytes(memory.arena, memory.size.arenaBytes);
const logger = createLogger({
  ...{ thread: 'main', level: 'silent', pretty: false, onDrop: () => {} },
  access: { rate: 0, slowMs: minuteMs },
});
const pools: TokenizerPool[] = [];

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
});
afterAll(async () => {
  removeTokenizers();
  await logger.close(100);
});

function configOf(file: string, queue = 4) {
  const replicas = [{ url: 'http://127.0.0.1:9' }];
  const loaded = configFromObject({
    tokenizers: { queue },
    models: [
      { name: 'plain', replicas },
      { name: 'm', replicas: [{ url: 'http://127.0.0.1:9' }], tokenizer: { file } },
    ],
  });
  if (!loaded.ok) throw new Error(loaded.problems[0]?.message);
  return loaded.config;
}

async function started(file: string, queue?: number): Promise<TokenizerPool> {
  const pool = new TokenizerPool({ config: configOf(file, queue), memory, logger });
  pools.push(pool);
  await pool.start();
  return pool;
}

/** Puts the body into the arena. */
function task(body: object, more: Partial<TokenTask> = {}): TokenTask {
  const text = Buffer.from(JSON.stringify(body));
  const start = more.start ?? 64;
  arena.set(text, start);
  return {
    ...{ want: 'count', model: 1, shape: 'openai-chat', start, length: text.length },
    ...{ room: 1e9, maxContext: 0, deadlineMs: nowMs() + minuteMs, ...more },
  };
}
const chat = (content: string) => ({ messages: [{ role: 'user', content }] });
const hi = chat('Hi');
const none = (reason: string) => ({ kind: 'none', reason });

const rendered = '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n';
const exact = (name: 'gpt2' | 'yi'): TokenAnswer => ({
  kind: 'count',
  tokens: referenceOf(name).cases.find(({ text }) => text === rendered)?.ids.length ?? 0,
  isWhole: true,
});

/** Loops for as long as nobody ends it, when somebody says so. */
const stuck = `{% if messages[0].content == 'loop' %}{% for i in range(100000000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}{% endif %}${chatMl}`;

test('a body in shared memory is counted as the reference counts it', async () => {
  const pool = await started(tokenizerFolder('yi'));
  expect(await pool.ask(task(hi))).toEqual(exact('yi'));
});

test('a model without a tokenizer, bytes that are no JSON', async () => {
  const pool = await started(tokenizerFolder('gpt2'));
  expect(await pool.ask(task(hi, { model: 0 }))).toEqual(none('failed'));
  expect(await pool.ask(task(hi, { length: 9 }))).toEqual(none('uncountable'));
  expect(await pool.ask(task(hi, { length: '{"messages":'.length }))).toEqual(none('failed'));
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
});

test('one more than run and wait is told at once', async () => {
  const pool = await started(tokenizerFolder('gpt2'), 2);
  const asked = Array.from({ length: 5 }, () => pool.ask(task(hi)));
  const answers = await Promise.all(asked);
  expect(answers.filter(({ kind }) => kind === 'count')).toHaveLength(3);
  expect(answers.slice(3)).toEqual([none('busy'), none('busy')]);
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
});

test('what is asked too late is not begun', async () => {
  const pool = await started(tokenizerFolder('gpt2'));
  expect(await pool.ask(task(hi, { deadlineMs: nowMs() - 1 }))).toEqual(none('late'));
});

test('a thread that does not let go of a task is ended, and another answers', async () => {
  const pool = await started(tokenizerFolder('gpt2', stuck));
  const deadlineMs = nowMs() + 100;
  expect(await pool.ask(task(chat('loop'), { deadlineMs }))).toEqual(none('late'));
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
});

test('a thread that dies fails its task alone', async () => {
  const threads: Worker[] = [];
  const note = (worker: Worker): number => threads.push(worker);
  process.on('worker', note);
  const pool = await started(tokenizerFolder('gpt2', stuck));
  process.off('worker', note);
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
  const dying = pool.ask(task(chat('loop')));
  const behind = pool.ask(task(hi, { start: 4096 }));
  await threads.at(-1)?.terminate();
  expect(await dying).toEqual(none('failed'));
  // Where piscina has not heard yet that the dead one was ready, all of its threads are replaced.
  expect([exact('gpt2'), none('failed')]).toContainEqual(await behind);
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
});

test('a task that runs out of heap ends its thread and nothing else', {
  timeout: minuteMs,
}, async () => {
  // Every row is kept, and no single one is large.
  const grows = `{% set ns = namespace(rows=[]) %}{% for i in range(1000) %}{% for k in range(1000) %}{% set ns.rows = [ns.rows, i ~ k] %}{% endfor %}{% endfor %}`;
  const file = tokenizerFolder(
    'gpt2',
    `{% if messages[0].content == 'grow' %}${grows}{% endif %}${chatMl}`,
  );
  const texts = [null, readTokenizerFiles({ file, chatTemplate: '' })];
  const start = { arena: memory.arena, arenaBytes: memory.size.arenaBytes, texts };
  const threads = await TokenizerThreads.start(start, 1, () => {}, 96);
  const never = new AbortController().signal;
  try {
    expect(await threads.run(task(hi), never)).toEqual(exact('gpt2'));
    const growing = threads.run(task(chat('grow')), never);
    const behind = threads.run(task(hi, { start: 4096 }), never).catch(() => 'failed');
    await expect(growing).rejects.toMatchObject({ code: 'ERR_WORKER_OUT_OF_MEMORY' });
    expect([exact('gpt2'), 'failed']).toContainEqual(await behind);
    await expect.poll(() => threads.run(task(hi), never).catch(() => {})).toEqual(exact('gpt2'));
  } finally {
    await threads.destroy();
  }
});

test('threads that die before they are ready are replaced all the same', async () => {
  const threads: Worker[] = [];
  const note = (worker: Worker): number => threads.push(worker);
  process.on('worker', note);
  const pool = await started(tokenizerFolder('gpt2'));
  process.off('worker', note);
  const end = (worker: Worker): void => void worker.terminate();
  process.on('worker', end); // whoever is born from here on
  await threads[0]?.terminate();
  const answer = await pool.ask(task(hi, { deadlineMs: nowMs() + 100 }));
  expect(answer.kind).toBe('none');
  process.off('worker', end);
  await expect
    .poll(() => pool.ask(task(hi)), { timeout: 20_000, interval: 100 })
    .toEqual(exact('gpt2'));
});

test('a thread in the place of a dead one knows what that one knew, not what the files have become', async () => {
  const folder = tokenizerFolder('gpt2', stuck);
  const pool = await started(folder);
  writeFileSync(join(folder, 'tokenizer.json'), '{"model":');
  expect(await pool.reload()).toMatch(/is not JSON/);
  const deadlineMs = nowMs() + 100;
  expect(await pool.ask(task(chat('loop'), { deadlineMs }))).toEqual(none('late'));
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
});

test('a pool that is closed while it starts leaves no thread behind', async () => {
  const threads: Worker[] = [];
  const note = (worker: Worker): number => threads.push(worker);
  process.on('worker', note);
  const config = configOf(tokenizerFolder('gpt2'));
  const pool = new TokenizerPool({ config, memory, logger });
  const starting = pool.start();
  await pool.close();
  await starting;
  process.off('worker', note);
  expect(threads.length).toBeGreaterThan(0);
  await expect.poll(() => threads.every(({ threadId }) => threadId === -1)).toBe(true);
});

test('a body of very many values is left alone', async () => {
  const pool = await started(tokenizerFolder('gpt2'));
  const values = Array.from({ length: 300_000 }, () => 1);
  const uncountable = none('uncountable');
  expect(await pool.ask(task({ messages: [{ role: 'user', content: 'a', values }] }))).toEqual(
    uncountable,
  );
  const ids = task({ prompt: values }, { shape: 'openai-completions' });
  expect(await pool.ask(ids)).toEqual({ kind: 'count', tokens: values.length, isWhole: true });
});

test('new files take over, files that cannot be used change nothing', async () => {
  const folder = tokenizerFolder('gpt2');
  const pool = await started(folder);
  expect(await pool.reload()).toBe('');
  writeFileSync(join(folder, 'tokenizer.json'), '{"model":');
  expect(await pool.reload()).toMatch(/^models\.1\.tokenizer: tokenizer\.json is not JSON: /);
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
  rmSync(join(folder, 'tokenizer.json'));
  expect(await pool.reload()).toMatch(/tokenizer\.json cannot be read \(ENOENT\)$/);
  expect(await pool.ask(task(hi))).toEqual(exact('gpt2'));
  writeTokenizer(folder, 'yi');
  expect(await pool.reload()).toBe('');
  expect(await pool.ask(task(hi))).toEqual(exact('yi'));
});

test('files that are broken at the start are a reason not to start', async () => {
  const folder = tokenizerFolder('gpt2', '{% for %}');
  await expect(started(folder)).rejects.toThrow(/^models\.1\.tokenizer: the chat template of /);
  const [problem] = await tokenizerProblems(configOf(folder));
  expect(problem).toMatchObject({ model: 1 });
  expect(await tokenizerProblems(configOf(tokenizerFolder('gpt2')))).toEqual([]);
});
