/**
 * T13: an event that is far above the cap, and a line that never ends: the client is told, the replica is
 * left, and the gateway has not held what it must not pass.
 */
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { memory } from '../../scripts/bench/procfs.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { eventBytesMaxDefault } from '../../src/protocol/sse-scanner.ts';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { chunk, jsonAnswer, RawReplica, sseHead, tokenEvent } from '../support/raw-replica.ts';
import { withReplicas } from '../support/replica.ts';
import { configOf } from '../support/scenario.ts';
import { Call, type CallOptions } from '../support/traffic.ts';

const capMb = eventBytesMaxDefault / 2 ** 20;
const events = 20;
const piece = chunk(Buffer.alloc(64 * 1024, 'x'));
const config = { health: { interval: '10m' }, breaker: { mode: 'off' } } as const;

/** How far the resident set of a gateway at work rises while an event is on its way, at its peak. */
async function rises(
  gateway: GatewayProcess,
  options: Omit<CallOptions, 'nonce'>,
): Promise<number[]> {
  const rises: number[] = [];
  // The first ones pay for code, pages and buffers that every later one uses again.
  for (let i = 0; i < 2 * events; i++) {
    const { rssMb } = memory(gateway.pid);
    writeFileSync(`/proc/${gateway.pid}/clear_refs`, '5'); // the peak is taken from here on
    const c = await new Call(gateway.port, { nonce: `t13-${i}`, stream: true, ...options }).ended;
    if (i >= events) rises.push(memory(gateway.pid).rssMaxMb - rssMb);
    expect(c.end).toBe('stream-error');
    expect(c.ledger.errors).toEqual([expect.objectContaining({ code: 'event_too_large' })]);
    expect(c.bytes, 'nothing of the event is passed').toBeLessThan(4096);
  }
  return rises;
}

/**
 * Of the median: an event leaves its reads for the next collection, so now and then one of them pays for
 * those before it, or for the collection.
 */
function expectFlat(name: string, rises: readonly number[]): void {
  const median = quantile(rises, 0.5);
  figure(
    'T13',
    `RSS rises by, ${name}`,
    median,
    `MiB, at most ${Math.max(...rises).toFixed(1)} MiB`,
  );
  expect(median, `MiB: ${rises.join(' ')}`).toBeLessThan(2 * capMb);
}

describe.each(testEngines)('engine %s', (engine) => {
  test('T13: an event of 20 MB is cut with an error and little memory', async () => {
    await withReplicas(1, { profile: 'instant' }, async (replicas) => {
      const more = { ...config, listen: { engine } };
      await withGateway({ config: configOf(replicas, more) }, async (gateway) => {
        expectFlat('event', await rises(gateway, { tags: '[[fault:big-event=20000000]]' }));
      });
    });
  });

  test('T13: a line that does not end is cut with an error, and its replica is left', async () => {
    const endless = await RawReplica.listen(({ method, connection: { socket } }) => {
      if (method === 'GET') {
        socket.write(jsonAnswer({ data: [] }));
        return;
      }
      socket.write(sseHead);
      socket.write(chunk(`${tokenEvent('first')}data: `));
      const more = (): void => {
        while (!socket.destroyed && socket.write(piece));
      };
      socket.on('drain', more);
      more();
    });
    try {
      const more = { ...config, listen: { engine } };
      await withGateway({ config: configOf([endless], more) }, async (gateway) => {
        expectFlat('endless line', await rises(gateway, {}));
        for (const { connection } of endless.requests) await connection.closed;
      });
    } finally {
      await endless.close();
    }
  });
});
