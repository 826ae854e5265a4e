/** An acceptor that the tests of a suite share. */
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { AcceptorHarness, type HarnessOptions } from './acceptor-harness.ts';

/** One acceptor for all tests of a suite; after each it holds nothing, and nothing in it has failed. */
export function acceptorForAll(
  options: HarnessOptions,
  use: (harness: AcceptorHarness) => void,
): void {
  let harness: AcceptorHarness;
  beforeAll(async () => {
    harness = await AcceptorHarness.start(options);
    use(harness);
  });
  afterEach(async () => {
    await harness.quiet();
    expect(harness.counter('handlerErrors')).toBe(0);
    expect(harness.counter('settleConflicts')).toBe(0);
  });
  afterAll(async () => {
    expect(await harness.stop()).toBe(0);
  });
}
