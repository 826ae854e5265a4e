import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');

function run(script: string, ...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, script), ...args], {
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

const simulate = (...args: readonly string[]) => run('src/main.ts', 'simulate', ...args);

test.each([
  [['--scenario', 's99'], 'unknown scenario s99; known: s1 '],
  [['--trace', 'nobody'], 'unknown trace nobody; known: conversation '],
  [['--trace', 'sharegpt', '--scenario', 's1'], 'cannot be used with'],
  [['--policy', 'lmetric,best'], 'unknown policy best; known: round_robin '],
  [['--model', '9b'], 'unknown model 9b; known: 8b-h100 '],
  [['--rate', '-3'], 'must be a number above 0'],
  [['--rate', 'fast'], 'must be a number above 0'],
  [['--replicas', '0'], 'must be a whole number from 1 to 256'],
  [['--scenario', 's9-add', '--replicas', '4'], 'needs more replicas'],
  [['--config', 'sluice.yaml'], '--config goes with --replay'],
  [['--replay', 'a', '--trace', 'sharegpt'], 'cannot be used with'],
  [['--replay', 'a', '--hold', '9'], 'queue.hold_tokens'],
  [['--replay', '/nowhere/a.ndjson'], '/nowhere/a.ndjson: ENOENT'],
])('%j is refused with a reason', (args, reason) => {
  const { status, stdout, stderr } = simulate(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(reason);
});

test('the table has a row for each policy, and a second run prints the same bytes', () => {
  const args = [
    '--scenario',
    's4',
    '--requests',
    '200',
    '--policy',
    'lmetric,chwbl',
    '--seeds',
    '3',
  ];
  const { status, stdout } = simulate(...args);
  expect(status).toBe(0);
  expect(stdout.split('\n')).toHaveLength(5);
  expect(stdout).toMatch(/^lmetric .*\n^chwbl .*\n/m);
  expect(simulate(...args).stdout).toBe(stdout);
});

test('JSON has every figure with its range', () => {
  const { stdout } = simulate(
    ...['--trace', 'sharegpt', '--rate', '30', '--requests', '300', '--policy', 'all', '--json'],
  );
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ scenario: 'sharegpt', rate: 30, replicas: 8, seeds: 1 });
  expect(report.policies.length).toBeGreaterThan(15);
  for (const { figures } of report.policies) {
    expect(figures.goodput.median).toBeGreaterThan(0);
    expect(figures.preemptions).toEqual({ median: 0, min: 0, max: 0 });
  }
});

test('a file of requests is replayed over the replicas, the policy and the seed of a config', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-simulate-'));
  try {
    const log = join(folder, 'requests.ndjson');
    const config = join(folder, 'sluice.yaml');
    const line = (i: number) => {
      const messages = [{ role: 'user', content: `say ${i}` }];
      return JSON.stringify({ at_ms: 20 * i, body: { model: 'm', stream: true, messages } });
    };
    writeFileSync(log, Array.from({ length: 50 }, (_, i) => line(i)).join('\n'));
    writeFileSync(
      config,
      `scheduler: { seed: 77 }
models: [{ name: m, policy: random, replicas: [{ url: "http://a:1" }, { url: "http://b:1" }] }]`,
    );
    const { stdout, stderr } = simulate('--replay', log, '--config', config);
    expect(stderr).toBe('');
    expect(stdout).toContain('8b-h100, 2 replicas, 50 requests/s, seed 77\n');
    expect(stdout.split('\n').map((row) => row.split(' ')[0])).toContain('random');
    expect(stdout.split('\n')).toHaveLength(4);
    writeFileSync(log, `${line(0)}\n{"at_ms":1}`);
    const broken = simulate('--replay', log);
    expect(broken.status).toBe(2);
    expect(broken.stderr).toContain(`${log}: line 2: body `);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('S10 shows what split and old state cost', () => {
  const { stdout } = simulate('--scenario', 's10', '--requests', '300', '--policy', 'lmetric');
  for (const name of ['exact', '100 ms old', '8 proxies'])
    expect(stdout).toContain(`lmetric, ${name}`);
});

/** Two evaluations are half a minute of one core, which others use as well. */
const pagesMsMax = 180_000;

test(
  'charts and the whole page are written, the same ones for the same seed',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-simulate-'));
    try {
      simulate('--scenario', 's4', '--requests', '100', '--svg', join(folder, 'svg'));
      expect(readdirSync(join(folder, 'svg'))).toContain('s4-goodput.svg');
      const pages = ['one', 'two'].map((name) => {
        const { status } = run('scripts/evaluate.ts', '--quick', '--out', join(folder, name));
        expect(status).toBe(0);
        return readFileSync(join(folder, name, 'scheduling.md'), 'utf8');
      });
      expect(pages[1]).toBe(pages[0]);
      const charts = [...(pages[0] ?? '').matchAll(/\]\((scheduling\/[^)]+)\)/g)];
      expect(charts.length).toBeGreaterThan(15);
      for (const [, file = ''] of charts) {
        expect(readFileSync(join(folder, 'one', file), 'utf8')).toContain('</svg>');
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  pagesMsMax,
);
