import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ConfigWatch } from '../../../src/gateway/config-watch.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-watch-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A watch that has started on the path; the test looks more often than it does by itself. */
async function watching(path: string) {
  let changes = 0;
  const watch = new ConfigWatch(path);
  await watch.mark();
  watch.follow(() => changes++);
  return {
    /** Looks so many times; how many changes there have been in all. */
    async changesAfter(looks: number): Promise<number> {
      for (let i = 0; i < looks; i++) await watch.look();
      return changes;
    },
    stop: () => watch.stop(),
  };
}

test('a file that is written or replaced is told of once, when it has come to rest', async () => {
  const path = join(folder, 'sluice.yaml');
  writeFileSync(path, 'a');
  const watch = await watching(path);
  expect(await watch.changesAfter(3)).toBe(0);
  writeFileSync(path, 'ab');
  expect(await watch.changesAfter(1)).toBe(0);
  writeFileSync(path, 'abc');
  expect(await watch.changesAfter(1)).toBe(0); // it was still changing
  expect(await watch.changesAfter(3)).toBe(1);
  writeFileSync(join(folder, 'new'), 'abcd');
  renameSync(join(folder, 'new'), path);
  expect(await watch.changesAfter(4)).toBe(2);
  watch.stop();
});

test('a ConfigMap that swaps the link above the file is a change', async () => {
  for (const [version, text] of [
    ['v1', 'same'],
    ['v2', 'same'],
  ] as const) {
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, 'sluice.yaml'), text);
  }
  symlinkSync('v1', join(folder, '..data'));
  symlinkSync(join('..data', 'sluice.yaml'), join(folder, 'sluice.yaml'));
  const watch = await watching(join(folder, 'sluice.yaml'));
  symlinkSync('v2', join(folder, '..data_tmp'));
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  expect(await watch.changesAfter(4)).toBe(1);
  watch.stop();
});

test('a file that is gone for a moment and back as it was is no change', async () => {
  const path = join(folder, 'sluice.yaml');
  writeFileSync(path, 'a');
  const watch = await watching(path);
  renameSync(path, join(folder, 'aside'));
  expect(await watch.changesAfter(3)).toBe(0);
  watch.stop();
});
