import { describe, expect, test } from 'vitest';
import { EdgeHead } from '../../../src/acceptor/edge-head.ts';
import {
  deadlineOf,
  hashSession,
  invalidHints,
  priorityOf,
} from '../../../src/acceptor/request-hints.ts';

const headWith = (name: string, value: string): EdgeHead => {
  const head = new EdgeHead();
  head.reset('POST', '/');
  head.add(name, value);
  return head;
};

test.each(['0', '7', '-7', '100', '-100'])('priority %s is taken', (value) => {
  const head = headWith('x-sluice-priority', value);
  expect(invalidHints(head)).toBe('');
  expect(priorityOf(head)).toBe(Number(value));
});

test.each(['101', '-101', '1.5', '+1', 'high', '1e1', ' 1', '0x1', '--1'])(
  'priority %s is refused',
  (value) => expect(invalidHints(headWith('x-sluice-priority', value))).toBe('x-sluice-priority'),
);

test.each(['1', '1500', '86400000'])('deadline %s is taken', (value) => {
  const head = headWith('x-sluice-deadline-ms', value);
  expect(invalidHints(head)).toBe('');
  expect(deadlineOf(head)).toBe(Number(value));
});

test.each(['0', '-1', '86400001', '999999999', '1s', '1.0'])('deadline %s is refused', (value) =>
  expect(invalidHints(headWith('x-sluice-deadline-ms', value))).toBe('x-sluice-deadline-ms'),
);

test('an explanation is asked for with 1', () => {
  expect(invalidHints(headWith('x-sluice-explain', '1'))).toBe('');
});

test.each(['0', 'true', '2', '1, 1', '01', ' 1'])('explain %s is refused', (value) =>
  expect(invalidHints(headWith('x-sluice-explain', value))).toBe('x-sluice-explain'),
);

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
