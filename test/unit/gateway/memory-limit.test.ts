import { expect, test } from 'vitest';
import {
  countedBytes,
  excessBytes,
  memoryLimit,
  memoryWarning,
} from '../../../src/gateway/memory-limit.ts';
import { memoryLadder, rungsAfter } from '../../../src/gateway/overload-stages.ts';
import { loaded, models } from '../config/support.ts';

const mib = 1024 ** 2;
const config = (memory: string, arena: string) =>
  loaded(`degrade: { memory: ${memory} }\nmemory: { arena: ${arena} }\n${models}`);

test('the limit is what the config says, or what there is', () => {
  expect(memoryLimit(512 * mib)).toBe(512 * mib);
  expect(memoryLimit('off')).toBe(Number.POSITIVE_INFINITY);
  expect(memoryLimit('auto')).toBeGreaterThan(64 * mib);
});

test('a config that may keep more than 85 % of its limit is warned of', () => {
  expect(memoryWarning(config('512MiB', '300MiB'))).toMatch(
    /^memory.arena \(300MiB\).* come to 464MiB .* 91 % of the limit of 512MiB/,
  );
  expect(memoryWarning(config('512MiB', '256MiB'))).toBe('');
  expect(memoryWarning(config('off', '2047MiB'))).toBe('');
});

test('a burst that filled the arena does not keep a process at rest in a stage', () => {
  const excess = excessBytes(config('512MiB', '300MiB'));
  const share = (used: number, peak: number): number =>
    countedBytes(464 * mib, used * mib, peak * mib, excess) / (512 * mib);
  expect(rungsAfter(memoryLadder, 0, share(300, 300)), 'while it is in use').toBe(1);
  expect(rungsAfter(memoryLadder, 4, share(0, 300)), 'once it is free').toBe(0);
  expect(share(0, 0), 'where heaps have it').toBe(share(300, 300));
});

test('where the config fits all that is resident counts', () => {
  const excess = excessBytes(config('1GiB', '256MiB'));
  expect(countedBytes(900 * mib, 0, 256 * mib, excess)).toBe(900 * mib);
});
