/** `sluice usage`: sums over files, each event once. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readUsage, usageTable } from '../../../src/telemetry/usage-report.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-report-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const event = (id: string, more: object = {}): string =>
  `${JSON.stringify({
    ...{ id, time: '2026-12-01T10:00:00.000Z', tenant: 'acme', model: 'm', outcome: 'ok' },
    ...{ input_tokens: 10, cached_tokens: 4, output_tokens: 5 },
    ...more,
  })}\n`;

function file(name: string, ...lines: string[]): string {
  const path = join(folder, name);
  writeFileSync(path, lines.join(''));
  return path;
}
const [from, to] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];

test('events are summed up once each, by what is asked for', async () => {
  const files = [
    file(
      'a',
      event('1', { cost: 0.1 }),
      event('2', { tenant: 'other', output_tokens: null, outcome: 'client_gone' }),
    ),
    file(
      'b',
      event('1'),
      '\n',
      '{"id":"1","ti\n',
      event('3', { model: 'n', outcome: 'error', cost: 0.2, estimated: true }),
    ),
  ];
  const report = await readUsage(files, ['tenant'], from, to);
  expect(report).toMatchObject({
    rows: [
      {
        group: ['acme'],
        requests: 2,
        errors: 1,
        input_tokens: 20,
        output_tokens: 10,
        uncounted: 0,
        estimated: 1,
        // Not the 0.30000000000000004 of binary fractions.
        cost: 0.3,
      },
      { group: ['other'], requests: 1, client_gone: 1, input_tokens: 10, uncounted: 1 },
    ],
    total: {
      requests: 3,
      input_tokens: 30,
      cached_tokens: 12,
      output_tokens: 10,
      uncounted: 1,
      estimated: 1,
      cost: 0.3,
    },
    ...{ duplicates: 1, unreadable: 1 },
  });
  expect(usageTable(report)).toBe(
    [
      'tenant  requests  errors  client_gone  input_tokens  cached_tokens  output_tokens  uncounted  estimated  cost',
      'acme           2       1            0            20              8             10          0          1   0.3',
      'other          1       0            1            10              4              0          1          0     0',
      'all            3       1            1            30             12             10          1          1   0.3',
      '',
    ].join('\n'),
  );
});

test('a time begins with its first and ends before its last', async () => {
  const path = file('a', event('1'), event('2', { time: '2026-12-02T00:00:00.000Z' }));
  const of = async (since: string, until: string) =>
    (await readUsage([path], ['day'], Date.parse(since), Date.parse(until))).rows.map(
      ({ group }) => group[0],
    );
  expect(await of('2026-12-01', '2026-12-02')).toEqual(['2026-12-01']);
  expect(await of('2026-12-02', '2026-12-03')).toEqual(['2026-12-02']);
});

test('a file that is not there is said', async () => {
  await expect(readUsage([join(folder, 'none')], ['tenant'], from, to)).rejects.toThrow('ENOENT');
});
