import { expect, test } from 'vitest';
import {
  readResponseHead,
  readUint32,
  responseHeadBytes,
  writeResponseHead,
  writeUint32,
} from '../../../src/shm/response-records.ts';

const heads = [
  { status: 200, headerLength: 0, contentLength: -1, replica: 0 },
  { status: 503, headerLength: 4096, contentLength: 0, replica: 255 },
  { status: 100, headerLength: 1, contentLength: 2 ** 31 - 1, replica: 7 },
];

test.each(heads)('the head %o is read as it was written, at any offset', (head) => {
  for (const offset of [0, 3, 16]) {
    const data = new Uint8Array(new SharedArrayBuffer(64)).fill(0xee);
    writeResponseHead(data, offset, head);
    const read = { status: 0, headerLength: 0, contentLength: 0, replica: 1 };
    readResponseHead(data, offset, read);
    expect(read).toEqual(head);
    expect(data[offset + responseHeadBytes]).toBe(0xee); // nothing behind it was touched
    if (offset > 0) expect(data[offset - 1]).toBe(0xee);
  }
});

test.each([0, 1, 255, 256, 2 ** 31, 2 ** 32 - 1])('%i is a uint32', (value) => {
  const data = new Uint8Array(8);
  writeUint32(data, 2, value);
  expect(readUint32(data, 2)).toBe(value);
  expect([data[0], data[1], data[6], data[7]]).toEqual([0, 0, 0, 0]);
});
