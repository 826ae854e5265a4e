import { expect, test } from 'vitest';
import { GatewayProcess } from '../../../src/supervisor/gateway-process.ts';

test('one that cannot even be started ends like any other, in a later turn', async () => {
  const ended = Promise.withResolvers<unknown>();
  const events = {
    ready: () => {},
    leaving: () => {},
    restart: () => {},
    ended: (process: GatewayProcess, ending: unknown) => ended.resolve([process, ending]),
  };
  // The null byte has spawn throw, as a lack of memory would.
  const process = new GatewayProcess(['\0'], undefined, true, events);
  process.limit(10_000, () => ended.reject(new Error('it is late')));
  process.tell({ kind: 'alone' });
  process.kill('SIGTERM');
  expect(await ended.promise).toEqual([process, { code: 1, signal: null }]);
});
