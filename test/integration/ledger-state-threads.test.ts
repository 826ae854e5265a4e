/** The state of the ledger while a thread that was killed still writes its own beside that of its successor. */
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readState, stateFileOf } from '../../src/ledger/state-file.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-state-'));
  path = stateFileOf(join(folder, 'u.ndjson'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const whole = { version: 2, journals: {}, spending: { days: {}, months: {} } };

/** A thread that writes a state of its own so many times, as one that lives on for a moment does. */
const writer = `
  const { workerData } = require('node:worker_threads');
  import(workerData.module).then(async ({ writeState }) => {
    for (let i = 0; i < workerData.times; i++) await writeState(workerData.path, workerData.text);
  });`;

test('two threads of one process write: each ends, and the file is always whole', async () => {
  const module = new URL('../../src/ledger/state-file.ts', import.meta.url).href;
  const states = [1, 40_000].map((length) => {
    const gateway = { id: 'x'.repeat(length), before: whole.spending };
    return JSON.stringify({ ...whole, gateway });
  });
  const threads = states.map((text) => {
    const workerData = { module, path, text, times: 50 };
    return once(new Worker(writer, { eval: true, workerData }), 'exit');
  });
  let isOver = false;
  const ended = Promise.all(threads).finally(() => {
    isOver = true;
  });
  while (!isOver) {
    const state = await readState(path);
    if (state !== undefined) expect(states).toContain(JSON.stringify(state));
  }
  expect((await ended).map(([code]) => code)).toEqual([0, 0]);
  expect(readdirSync(folder)).toEqual(['u.ndjson.ledger']);
});
