import { expect, test } from 'vitest';
import { errorTypeIndex, errorTypes } from '../../../src/telemetry/labels.ts';

test.each([
  [200, true, ''],
  [200, false, 'stream_error'],
  [499, false, 'client_gone'],
  [429, false, '429'],
  [400, false, '_OTHER'],
  [500, false, '500'],
  [504, false, '504'],
  [529, false, '_OTHER'],
])('error.type of status %d, well %s, is %j', (status, isWell, type) => {
  expect(errorTypes[errorTypeIndex(status, isWell)]).toBe(type);
});
