/** Bodies at the limits, clients that leave, and records that come late, on both engines. */
import { describe, expect, test } from 'vitest';
import { discardBytesMax } from '../../src/acceptor/listener.ts';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { AcceptorHarness } from '../support/acceptor-harness.ts';
import { acceptorForAll } from '../support/acceptor-suite.ts';
import { chat, post } from '../support/acceptor-wire.ts';
import { RawClient } from '../support/raw-client.ts';

describe.each(['uws', 'node'] as const)('acceptor, engine %s', (engine) => {
  const maxBody = 1024 * 1024;
  let harness: AcceptorHarness;
  acceptorForAll({ engine, maxBody, slots: 16 }, (started) => {
    harness = started;
  });

  test.each(['queued', 'dispatched', 'streaming'] as const)(
    'a client that leaves while %s cancels once and frees everything',
    async (stage) => {
      const before = harness.cancels.length;
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat({ stream: true })));
      const arrival = await harness.arrival();
      let lease = arrival.lease;
      if (stage === 'dispatched') lease = harness.dispatch(arrival);
      if (stage === 'streaming') {
        lease = harness.head(arrival);
        harness.tryChunk(arrival.slot, lease, Buffer.from('data: 1\n\n'));
        await client.until((bytes) => bytes.includes('data: 1'));
      }
      client.reset();
      await harness.cancelled(before + 1);
      const cancel = harness.cancels.at(-1)!;
      expect(AcceptorHarness.isSame(cancel, arrival)).toBe(true);
      expect(harness.column(arrival.slot, 'clientGone')).toBe(1);
      expect(harness.slotsInUse).toBe(1); // not freed before it is settled
      if (stage === 'queued') harness.refuse(arrival, errors.CLIENT_GONE.number);
      else if (stage === 'streaming') harness.end(arrival.slot, lease, errors.CLIENT_GONE.number);
      else {
        harness.slots.transition(arrival.slot, lease, SlotState.dispatched, SlotState.settled);
        harness.end(arrival.slot, lease, errors.CLIENT_GONE.number);
      }
      await harness.quiet();
      expect(harness.cancels.length).toBe(before + 1);
    },
  );

  test('a client that leaves in the middle of its body frees slot and arena by itself', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat()).slice(0, -5));
    await harness.until(() => harness.slotsInUse === 1, 'the slot is claimed');
    client.reset();
    await harness.quiet();
  });

  test('late records of an earlier generation never reach the next request of the slot', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat({ stream: true })));
    const old = await harness.arrival();
    const oldLease = harness.head(old);
    harness.end(old.slot, oldLease);
    await client.responses(1);
    await harness.quiet();
    const late = harness.counter('lateEvents');
    for (let i = 0; i < 16; i++) {
      await client.send(post(chat()));
      const arrival = await harness.arrival();
      harness.tryChunk(old.slot, oldLease, Buffer.from('POISON'));
      harness.whole(arrival, `clean ${i}`);
      await client.responses(i + 2);
    }
    expect(client.received.includes('POISON')).toBe(false);
    expect(harness.counter('lateEvents')).toBe(late + 16);
    await client.close();
  });

  test('T30: a 5 MB prompt is refused early when the cap is below, by its length alone', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5000000\r\n\r\n`,
    );
    await client.closed;
    expect((await client.responses(1)).responses[0]!.status).toBe(413);
  });

  test('T30: cap - 1 and cap are accepted, cap + 1 is not, chunked or not', async () => {
    for (const chunked of [false, true]) {
      for (const extra of [-1, 0, 1]) {
        const frame = JSON.stringify(chat({ pad: '' })).length;
        const body = JSON.stringify(chat({ pad: 'x'.repeat(maxBody + extra - frame) }));
        expect(body.length).toBe(maxBody + extra);
        const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n';
        const bytes = chunked
          ? `${head}transfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
          : `${head}content-length: ${body.length}\r\n\r\n${body}`;
        const client = await RawClient.connect(harness.port);
        await client.send(bytes);
        if (extra <= 0) {
          const arrival = await harness.arrival();
          expect(harness.body(arrival).toString() === body).toBe(true);
          harness.whole(arrival, 'ok');
        }
        const { responses } = await client.responses(1);
        expect(responses.map(({ status }) => status)).toEqual([extra <= 0 ? 200 : 413]);
        if (extra > 0 || chunked) await client.closed;
        await client.close();
      }
    }
  });

  test('T30: an endless chunked body is cut at the cap', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(
      'POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n',
    );
    const piece = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    let isOpen = true;
    void client.closed.then(() => {
      isOpen = false;
    });
    let sent = 0;
    while (isOpen && sent * 0x10000 < 2 * discardBytesMax) {
      sent++;
      await client.send(piece);
      expect(harness.arenaInUse).toBeLessThanOrEqual(2 * maxBody);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(isOpen).toBe(false);
    expect((await client.responses()).responses.map(({ status }) => status)).toEqual([413]);
  });

  test('T32: bodies reach the arena byte for byte', async () => {
    const bodies = [
      '{"model":"m","seed":9223372036854775807,"messages":[]}',
      '{"model":"m","x":1e400,"messages":[]}',
      '{"model":"m","\u00fcn\u00ef\u4e16":"\ud83d\ude00","messages":[]}',
      ' {\t"model" :\r\n "m" , "messages" : [ ]\n}  ',
      '{"mod\\u0065l":"m","messages":["\\ud800"]}',
    ];
    for (const body of bodies) {
      const bytes = Buffer.from(body);
      const client = await RawClient.connect(harness.port);
      await client.send(
        `POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: ${bytes.length}\r\n\r\n`,
      );
      for (const byte of bytes) await client.send(Buffer.of(byte));
      const arrival = await harness.arrival();
      expect(harness.body(arrival).equals(bytes)).toBe(true);
      harness.whole(arrival, 'ok');
      await client.responses(1);
      await client.close();
    }
  });

  test('100-continue is answered before the body, and not when the request is refused', async () => {
    const client = await RawClient.connect(harness.port);
    const body = JSON.stringify(chat());
    const head = (length: number): string =>
      `POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: ${length}\r\n\r\n`;
    await client.send(head(body.length));
    await client.until((bytes) => bytes.includes('100 Continue'));
    await client.send(body);
    harness.whole(await harness.arrival(), 'ok');
    expect((await client.responses(1)).responses[0]!.status).toBe(200);
    await client.close();
    const refused = await RawClient.connect(harness.port);
    await refused.send(head(maxBody + 1));
    await refused.closed;
    // uWebSockets.js sends it by itself, which costs the client a body that nobody reads.
    expect(refused.received.includes('100 Continue')).toBe(engine === 'uws');
    expect((await refused.responses(1)).responses[0]!.status).toBe(413);
  });
});
