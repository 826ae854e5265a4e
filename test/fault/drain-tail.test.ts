/** T44 for slow clients: what the gateway still holds for them when it is told to leave reaches them. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { Flood } from '../support/flood.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { jsonAnswer, RawReplica } from '../support/raw-replica.ts';
import { configOf } from '../support/scenario.ts';
import { Call } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const mib = 1024 * 1024;
/** The sockets between take up to 10 MiB of it, the gateway has the rest. */
const answerBytes = 14 * mib;
const clients = 3;
const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/**
 * Reads in small pieces for as long as the gateway holds any of it, then not at all until the gateway
 * is gone: what it let go of must have left it.
 */
async function readLate(c: Call, gateway: GatewayProcess): Promise<void> {
  let isGone = false;
  void gateway.exited.then(() => {
    isGone = true;
  });
  while (!isGone && !c.isComplete) {
    const from = c.bytes;
    c.resume();
    await c.until(({ bytes, isComplete }) => isComplete || bytes > from).catch(() => {});
    c.pause();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  await gateway.exited;
  c.resume();
}

describe.each(testEngines)('drain of engine %s', (engine) => {
  test.each([true, false])('a slow client gets its whole answer, stream %s', async (stream) => {
    const floods: Flood[] = [];
    const whole = JSON.stringify({ choices: [{ message: { content: 'x'.repeat(answerBytes) } }] });
    let wholeSent = 0;
    const replica = await RawReplica.listen((request) => {
      const { socket } = request.connection;
      if (request.method === 'GET') socket.write(jsonAnswer({ data: [] }));
      else if (stream) floods.push(new Flood(request, answerBytes));
      else socket.write(jsonAnswer(whole), () => wholeSent++);
    });
    const config = configOf([replica], {
      listen: { engine },
      memory: { stream_window: '16MiB' },
      drain: { timeout: '20s' },
    });
    try {
      await withGateway({ config }, async (gateway) => {
        const calls = Array.from(
          { length: clients },
          (_, i) => new Call(gateway.port, { nonce: `tail-${i}`, stream }),
        );
        for (const c of calls) {
          await c.until(({ status }) => status === 200);
          c.pause();
        }
        await eventually('the replica has sent everything', async () => {
          const { states } = await gateway.slots();
          const sent = stream ? floods.filter(({ isWhole }) => isWhole).length : wholeSent;
          return sent === clients && states.settled === clients;
        });
        for (const { unsent_bytes } of (await gateway.slots()).rows) {
          expect(unsent_bytes).toBeGreaterThan(mib);
        }
        gateway.kill('SIGTERM');
        await eventually('it drains', async () => (await gateway.ready()).status === 503);
        await Promise.all(calls.map((c) => readLate(c, gateway)));
        for (const c of calls) await c.ended;
        for (const c of calls) {
          expect([c.end, c.bytes > answerBytes]).toEqual(['done', true]);
        }
        if (stream) for (const c of calls) expect(sha(c.body)).toBe(floods[0]!.sha);
        else for (const c of calls) expect(sha(c.body)).toBe(sha(Buffer.from(whole)));
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
      });
    } finally {
      await replica.close();
    }
  });
});
