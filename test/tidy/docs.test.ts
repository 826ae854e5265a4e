import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { driftedPages, pages, root } from '../../scripts/docs.ts';

test.each(pages)('$path is what its source renders', async (page) => {
  expect(readFileSync(join(root, page.path), 'utf8')).toBe(await page.render());
});

test('a changed page and a missing page have drifted', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-docs-'));
  try {
    const [first, second, third] = pages;
    if (!first || !second || !third) throw new Error('fewer than three pages');
    for (const { path } of [first, second]) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
    }
    writeFileSync(join(folder, first.path), await first.render());
    writeFileSync(join(folder, second.path), `${await second.render()} `);
    expect(await driftedPages([first, second, third], folder)).toEqual([second.path, third.path]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
