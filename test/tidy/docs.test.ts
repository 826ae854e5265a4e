import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { driftedPages, pages, root } from '../../scripts/docs.ts';
import { errors } from '../../src/errors/catalogue.ts';
import { FAULT_NAMES } from '../../src/replica/faults.ts';
import { parseProfile } from '../../src/replica/profile.ts';

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

test('the page of the simulated replica names every fault and profile', () => {
  const page = readFileSync(join(root, 'docs/replica.md'), 'utf8');
  expect(FAULT_NAMES.length).toBeGreaterThan(20);
  expect(FAULT_NAMES.filter((name) => !new RegExp(`\`${name}[\`=]`).test(page))).toEqual([]);
  const profiles = [...page.matchAll(/^\| `((?:instant|uniform|tokens)[^`]*)` \|/gm)];
  expect(profiles.map(([, name]) => typeof parseProfile(name as string))).toEqual(
    Array(3).fill('object'),
  );
});

test('every answer that the page of operations names is in the catalogue of errors', () => {
  const page = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const answers = new Set(Object.values(errors).map(({ status, code }) => `${status} ${code}`));
  const named = [...page.matchAll(/\b(4\d\d|5\d\d) `(\w+)`/g)].map(([, s, code]) => `${s} ${code}`);
  expect(named.length).toBeGreaterThanOrEqual(4);
  expect(named.filter((answer) => !answers.has(answer))).toEqual([]);
});

test('the page of tests lists every folder of tests, and the steps of CI', () => {
  const page = readFileSync(join(root, 'docs/testing.md'), 'utf8');
  for (const folder of readdirSync(join(root, 'test')))
    expect(page).toContain(`\`test/${folder}\``);
  const steps = readFileSync(join(root, '.ci/run'), 'utf8').matchAll(/^step (\w+) (\d+)m (.*)$/gm);
  const rows = [...steps].map(([, name, limit, command]) => {
    const plain = command?.replace(' || exit 1', '');
    return `| ${name} | \`${plain}\` | ${limit} min |`;
  });
  expect(rows).toHaveLength(5);
  for (const row of rows) expect(page).toContain(row);
});
