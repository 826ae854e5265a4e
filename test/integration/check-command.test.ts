import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { removeTokenizers, tokenizerFolder } from '../support/tokenizers.ts';

const root = resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'sluice-check-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
  removeTokenizers();
});

function check(text: string, ...flags: readonly string[]) {
  writeFileSync(join(folder, 'sluice.yaml'), text);
  return sluice('check', ...flags);
}

function sluice(...args: readonly string[]) {
  const run = spawnSync(process.execPath, [join(root, 'src/main.ts'), ...args], {
    cwd: folder,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, SECRET: 'hunter2' },
    timeout: 20_000,
  });
  return { status: run.status, stdout: run.stdout, stderr: run.stderr };
}

const good = `admin: { token: "$\{SECRET}" }
models: [{ name: llama, replicas: [{ url: "http://127.0.0.1:9001", api_key: "$\{SECRET}" }] }]
`;

test('a good config exits 0 and shows what it would run, without its secrets', () => {
  const { status, stdout, stderr } = check(good);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^\.\/sluice\.yaml: ok$/m);
  expect(stdout).toMatch(/model +llama: marginal_cost over 1 \(r1 http:\/\/127\.0\.0\.1:9001\)/);
  expect(stdout).not.toContain('hunter2');
});

test('a bad config exits 2 with one plain line for each problem', () => {
  const { status, stdout, stderr } = check(`${good}timeuots: {}\nqueue: { max: -1 }\n`);
  expect(stdout).toBe('');
  expect(stderr).toBe(
    './sluice.yaml:3:1 timeuots: unknown key (did you mean "timeouts"?)\n' +
      './sluice.yaml:4:15 queue.max: must be at least 0\n',
  );
  expect(status).toBe(2);
});

test('--json carries the same for programs', () => {
  const bad = check(`${good}queue: { max: -1 }\n`, '--json');
  expect(bad.status).toBe(2);
  expect(JSON.parse(bad.stdout)).toMatchObject({
    ok: false,
    problems: [{ line: 3, col: 15, path: 'queue.max', message: 'must be at least 0' }],
  });
  const fine = check(good, '--json');
  expect(fine.status).toBe(0);
  expect(JSON.parse(fine.stdout)).toMatchObject({ ok: true, warnings: [] });
});

test('a secret in the file is a warning and no failure', () => {
  const { status, stderr } = check(good.replace(`"$\{SECRET}"`, 'hunter2'));
  expect(stderr).toMatch(/^\.\/sluice\.yaml:1:17 admin\.token: .*\(warning\)\n$/);
  expect(stderr).not.toContain('hunter2');
  expect(status).toBe(0);
});

test('what does nothing is a warning at its place, in text and in JSON', () => {
  const text = `${good}hedge: { budget: 0.1 }\n`;
  const plain = check(text);
  const message = 'does nothing without `hedge.automatic: true`';
  expect(plain.stderr).toBe(`./sluice.yaml:3:18 hedge.budget: ${message} (warning)\n`);
  expect(plain.status).toBe(0);
  const { stdout, status } = check(text, '--json');
  expect(JSON.parse(stdout)).toMatchObject({
    ok: true,
    warnings: [{ line: 3, col: 18, path: 'hedge.budget', message }],
  });
  expect(status).toBe(0);
});

test('a missing file and an unknown flag exit 2', () => {
  expect(sluice('check', '--config', 'absent.yaml')).toEqual({
    status: 2,
    stdout: '',
    stderr: 'absent.yaml: cannot be read (ENOENT)\n',
  });
  expect(sluice('check', '--confg', 'sluice.yaml').status).toBe(2);
});

test('files of a tokenizer are loaded; a bad one is a problem at its line', () => {
  const withTokenizer = (file: string): string =>
    `${good.trimEnd().slice(0, -2)}, tokenizer: { file: ${file} } }]\n`;
  const path = tokenizerFolder('gpt2');
  const fine = check(withTokenizer(path));
  expect(fine.stderr).toBe('');
  expect(fine.status).toBe(0);
  const missing = check(withTokenizer('nowhere/tokenizer.json'));
  expect(missing.status).toBe(2);
  expect(missing.stderr).toMatch(
    /^\.\/sluice\.yaml:2:\d+ models\.0\.tokenizer: \/.*\/nowhere\/tokenizer\.json cannot be read \(ENOENT\)\n$/,
  );
  writeFileSync(join(path, 'tokenizer.json'), '{"model":{"type":"BPE","vocab":{}}}');
  const broken = check(withTokenizer(path));
  expect(broken.status).toBe(2);
  expect(broken.stderr).toContain('models.0.tokenizer: ');
});
