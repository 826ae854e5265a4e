/**
 * The last bytes of an answer that a full connection has not taken yet: the slot stands for them, so an
 * acceptor that is told to stop once no slot is in use has nothing left to lose.
 */
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { answerHead } from '../support/acceptor-forwarder.ts';
import { AcceptorHarness } from '../support/acceptor-harness.ts';
import { chat, post } from '../support/acceptor-wire.ts';
import { RawClient } from '../support/raw-client.ts';
import { eventually } from '../support/until.ts';

/** Larger than what the sockets between two processes take. */
const tooMuch = 16 * 1024 * 1024;
const pieceBytes = 64 * 1024;
/** Around the capacity of a connection, so that some answers end just above what it takes. */
const offsets = [...Array.from({ length: 24 }, (_, i) => (i - 20) * 4099), 2 * 1024 * 1024];

interface Stream {
  readonly client: RawClient;
  readonly slot: number;
  readonly lease: number;
}

describe.each(['uws', 'node'] as const)('engine %s', (engine) => {
  test('a stream is truncated once its client is told so, and no other answer is', async () => {
    const harness = await AcceptorHarness.start({ engine });
    const { FORWARDER_LOST, TRUNCATED_STREAM } = errors;
    const event = Buffer.from('data: {}\n\n');
    for (const [i, error] of [0, FORWARDER_LOST.number, TRUNCATED_STREAM.number].entries()) {
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat({ stream: true })));
      const { slot } = await harness.arrival();
      const lease = harness.head({ slot, lease: harness.slots.lease(slot) });
      harness.tryChunk(slot, lease, event);
      harness.end(slot, lease, error);
      const { complete, body } = (await client.responses(1)).responses[0]!;
      expect(complete).toBe(true);
      expect(body.toString().includes('"error"')).toBe(error !== 0);
      expect(harness.counter('streamTruncated')).toBe(i);
      await client.close();
    }
    const other = await RawClient.connect(harness.port);
    await other.send(post(chat({})));
    const { slot } = await harness.arrival();
    const lease = harness.head({ slot, lease: harness.slots.lease(slot) }, 200, answerHead);
    harness.tryChunk(slot, lease, event);
    harness.end(slot, lease, TRUNCATED_STREAM.number);
    await eventually('the slot is free', () => harness.slots.state(slot) === SlotState.free);
    expect(harness.counter('streamTruncated')).toBe(2);
    await other.close();
    expect(await harness.stop()).toBe(0);
  });

  test('whose slot is free has been sent in full', async () => {
    const harness = await AcceptorHarness.start({
      engine,
      streamWindow: 2 * tooMuch,
      responseRingBytes: 2 * tooMuch,
    });
    const open = async (): Promise<Stream> => {
      const client = await RawClient.connect(harness.port);
      client.socket.pause();
      await client.send(post(chat({ stream: true })));
      const { slot } = await harness.arrival();
      return { client, slot, lease: harness.head({ slot, lease: harness.slots.lease(slot) }) };
    };
    const probe = await open();
    void harness.stream(probe.slot, probe.lease, Buffer.alloc(tooMuch, 'x'), pieceBytes);
    let capacity = -1;
    while (capacity !== harness.column(probe.slot, 'consumedBytes')) {
      capacity = harness.column(probe.slot, 'consumedBytes');
      await harness.beat();
    }
    probe.client.reset();
    await harness.cancelled(1);

    const sent: { stream: Stream; bytes: number }[] = [];
    for (const offset of offsets) {
      const stream = await open();
      const bytes = capacity + offset;
      const answer = Buffer.alloc(bytes, 'x');
      const last = answer.subarray(-pieceBytes);
      await harness.stream(stream.slot, stream.lease, answer.subarray(0, -pieceBytes), pieceBytes);
      await harness.last(stream.slot, stream.lease, last);
      sent.push({ stream, bytes });
    }
    await harness.beat();
    const isFree = sent.map(({ stream }) => harness.slots.state(stream.slot) === 0);
    expect(isFree).toContain(true);
    expect(isFree).toContain(false);
    expect(await harness.stop()).toBe(0);
    for (const [i, { stream, bytes }] of sent.entries()) {
      if (!isFree[i]) continue;
      stream.client.socket.resume();
      const { responses } = await stream.client.responses(1);
      expect([responses[0]!.complete, responses[0]!.body.length], `${i}`).toEqual([true, bytes]);
    }
    for (const { stream } of sent) await stream.client.close();
  });
});
