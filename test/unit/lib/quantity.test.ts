import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../../src/lib/quantity.ts';

test.each([
  ['500us', 0.5],
  ['5ms', 5],
  ['30s', 30_000],
  ['2m', 120_000],
  ['1h', 3_600_000],
  ['0s', 0],
  ['1.5s', 1500],
  ['4.35s', 4350],
])('%s is %d milliseconds', (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds);
});

test.each([
  ['512B', 512],
  ['64KiB', 65_536],
  ['16MiB', 16_777_216],
  ['1.5GiB', 1_610_612_736],
])('%s is %d bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  '',
  '30',
  's',
  '30 s',
  ' 30s',
  '30s ',
  '-1s',
  '+1s',
  '1e3s',
  '30S',
  '30sec',
  '.5s',
  '5.s',
  '1,5s',
  '٣s',
  '30s\n',
  '9999999999999s',
  'constructors',
])('%j is no duration', (text) => {
  expect(parseDuration(text)).toBeUndefined();
});

test.each(['64', '64K', '64KB', '64kib', '1.5B', '-1KiB', '0x10B'])('%j is no size', (text) => {
  expect(parseSize(text)).toBeUndefined();
});

test('what is formatted is read back exactly', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 86_400_000_000 }), (microseconds) => {
      expect(parseDuration(formatDuration(microseconds / 1000))).toBe(microseconds / 1000);
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 36 }), (bytes) => {
      expect(parseSize(formatSize(bytes))).toBe(bytes);
    }),
  );
});

test('the largest unit that is exact is used', () => {
  expect(formatDuration(90_000)).toBe('90s');
  expect(formatDuration(120_000)).toBe('2m');
  expect(formatDuration(0)).toBe('0us');
  expect(formatSize(3 * 1024 * 1024)).toBe('3MiB');
});
