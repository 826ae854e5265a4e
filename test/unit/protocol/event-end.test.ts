import { expect, test } from 'vitest';
import { isBetweenEvents, tailAfter } from '../../../src/protocol/event-end.ts';

const tailOf = (...pieces: string[]): number =>
  pieces.reduce((tail, piece) => {
    const data = Buffer.from(`xx${piece}yy`);
    return tailAfter(tail, data, 2, data.length - 2);
  }, 0);

test.each(['', 'data: 1\n\n', 'data: 1\r\n\r\n', 'data: 1\r\r', 'data: 1\n\r\n', 'data: 1\r\n\r'])(
  'between events behind %j, in any pieces',
  (text) => {
    expect(isBetweenEvents(tailOf(text))).toBe(true);
    expect(isBetweenEvents(tailOf(...text))).toBe(true);
  },
);

test.each(['d', 'data: 1', 'data: 1\n', 'data: 1\r\n', 'data: 1\r', 'data: 1\n\ndata: 2\n', '\nx'])(
  'within an event behind %j, in any pieces',
  (text) => {
    expect(isBetweenEvents(tailOf(text))).toBe(false);
    expect(isBetweenEvents(tailOf(...text))).toBe(false);
  },
);
