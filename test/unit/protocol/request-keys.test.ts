import { describe, expect, test } from 'vitest';
import { hashSession, tenantLane, tenantLanes } from '../../../src/protocol/request-keys.ts';

describe('session hash', () => {
  const reference = (key: string): bigint => {
    let hash = 0xcbf29ce484222325n;
    for (const byte of Buffer.from(key, 'latin1')) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    }
    return hash;
  };
  const ours = (key: string): bigint => {
    const words = new Int32Array(2);
    hashSession(key, words, 0);
    return (BigInt(words[1]! >>> 0) << 32n) | BigInt(words[0]! >>> 0);
  };
  test.each(['a', 'foobar', 'session-1', '\xff\xfe', 'x'.repeat(1000)])('%s is FNV-1a 64', (key) =>
    expect(ours(key)).toBe(reference(key)),
  );
  test('no key is 0 0', () => expect(ours('')).toBe(0n));
  test('keys beyond Latin-1 differ from their low bytes', () =>
    expect(ours('\u0141')).not.toBe(ours('A')));
});

test('keys spread over all lanes but 0, which is for those without one', () => {
  expect(tenantLane('')).toBe(0);
  const lanes = Array.from({ length: 2000 }, (_, i) => tenantLane(`Bearer ${i}`));
  expect(Math.min(...lanes)).toBeGreaterThan(0);
  expect(Math.max(...lanes)).toBeLessThan(tenantLanes);
  expect(new Set(lanes).size).toBeGreaterThan(0.98 * (tenantLanes - 1));
  const busiest = Math.max(...lanes.map((lane) => lanes.filter((l) => l === lane).length));
  expect(busiest).toBeLessThan(25); // 8 on average
});
