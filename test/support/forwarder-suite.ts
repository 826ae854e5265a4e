/** A forwarder and a replica that the tests of a suite share. */
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { ForwarderHarness, type HarnessOptions } from './forwarder-harness.ts';
import { RawReplica } from './raw-replica.ts';

/** The replica answers nothing until a test says how; `more`: URLs of those behind it. */
export function forwarderForAll(
  { more = [], ...options }: Omit<HarnessOptions, 'urls'> & { readonly more?: readonly string[] },
  use: (harness: ForwarderHarness, replica: RawReplica) => void,
): void {
  let replica: RawReplica;
  let harness: ForwarderHarness;
  beforeAll(async () => {
    replica = await RawReplica.listen();
    harness = await ForwarderHarness.start({ ...options, urls: [replica.url, ...more] });
    use(harness, replica);
  });
  beforeEach(() => {
    replica.respond = () => {};
  });
  afterAll(async () => {
    await harness?.close();
    await replica?.close();
  });
}
