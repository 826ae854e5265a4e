/** What a restart says of replicas that were changed by hand. */
import { expect, test } from 'vitest';
import { Restarts } from '../../../src/gateway/restarts.ts';
import type { MetricsWriter } from '../../../src/shm/metrics.ts';
import type { Logger } from '../../../src/telemetry/log.ts';

test('what differs from the file is named, what was taken back is not', () => {
  const warned: unknown[] = [];
  const logger = { warn: (_: string, { err }: { err: unknown }) => warned.push(err) };
  const restarts = new Restarts(undefined, {} as MetricsWriter, logger as unknown as Logger);
  const { byHand } = restarts;
  restarts.replaced();
  byHand.drained('a');
  byHand.undrained('a');
  byHand.added('b');
  byHand.removed('b');
  restarts.replaced();
  expect(warned).toEqual([]);
  byHand.drained('c');
  byHand.added('d');
  byHand.drained('d');
  byHand.undrained('d');
  byHand.removed('e');
  restarts.replaced();
  byHand.reloaded();
  restarts.replaced();
  expect(warned).toEqual(['c drained, d added, e removed', 'c drained']);
});
