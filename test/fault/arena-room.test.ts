/** The smallest arena that the config allows: what it must have room for. */
import { expect, test } from 'vitest';
import { testEngines, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';

const bodyBytes = 64 * 1024;
/** Nearly all that both engines take of a head, in a header that goes to the replica. */
const largeHead = { 'anthropic-beta': 'x'.repeat(14_000) };

/** A body of exactly the largest size. */
function largest(prompt: string): string {
  const empty = JSON.stringify(chatBody(prompt)).length;
  return JSON.stringify(chatBody(prompt + 'x'.repeat(bodyBytes - empty)));
}

test.each(testEngines)(
  'while one body of the largest size is in flight another is taken, engine %s',
  async (engine) => {
    await withReplicas(1, {}, async ([replica]) => {
      // A head and 64 KiB take a block of 128 KiB.
      const config = configOf([replica!], {
        listen: { engine, max_body: '64KiB' },
        memory: { arena: '256KiB' },
      });
      await withGateway({ config }, async (gateway) => {
        const held = post(gateway.url, largest('[[hold]]'), largeHead);
        await replica!.gate.arrivals(1);
        const other = await post(gateway.url, largest('[[len=1]]'), largeHead);
        expect(other).toMatchObject({ status: 200 });
        replica!.gate.release();
        expect(await held).toMatchObject({ status: 200 });
      });
    });
  },
);
