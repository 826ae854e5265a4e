import { expect, test } from 'vitest';
import type { Exchange } from '../../../src/acceptor/listener.ts';
import { Outbox } from '../../../src/acceptor/outbox.ts';
import { createPrng } from '../../../src/lib/prng.ts';

/** A connection of the kind both engines are: takes `room` bytes, then refuses one burst it has kept. */
class Connection {
  readonly got: number[] = [];
  room = 0;
  isBlocked = false;
  unconfirmedBytes = 0;

  write(data: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && !this.isBlocked) {
      const size = Math.min(end - at, 7);
      this.got.push(...data.subarray(at, at + size));
      at += size;
      this.room -= size;
      if (this.room >= 0) continue;
      this.isBlocked = true;
      this.unconfirmedBytes = size;
    }
    return at - start;
  }

  unblock(room: number): void {
    this.isBlocked = false;
    this.unconfirmedBytes = 0;
    this.room = room;
  }
}

test('bytes arrive once and in order, and the credit never runs ahead or backwards', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  const random = createPrng(seed);
  const connection = new Connection();
  const outbox = new Outbox(connection as unknown as Exchange);
  const sent: number[] = [];
  let credit = 0;
  for (let step = 0; step < 3000; step++) {
    if (random.below(2) === 0) {
      const data = Uint8Array.from({ length: random.below(40) }, () => random.below(256));
      outbox.send(data, 0, data.length);
      sent.push(...data);
      data.fill(0); // the ring reuses its bytes
    } else {
      connection.unblock(random.below(60));
      outbox.flush();
    }
    const label = `SEED=${seed} step ${step}`;
    expect(outbox.takenBytes, label).toBeGreaterThanOrEqual(credit);
    credit = outbox.takenBytes;
    expect(credit, label).toBe(connection.got.length - connection.unconfirmedBytes);
    expect(outbox.keptBytes, label).toBe(sent.length - connection.got.length);
  }
  connection.unblock(1e9);
  outbox.flush();
  expect(connection.got).toEqual(sent);
  expect(outbox.takenBytes).toBe(sent.length);
});

test('bytes that are sent aside are of no credit, whether taken or not', () => {
  const connection = new Connection();
  const outbox = new Outbox(connection as unknown as Exchange);
  connection.unblock(10);
  outbox.sendAside(Uint8Array.of(1, 2, 3));
  expect([outbox.takenBytes, connection.unconfirmedBytes]).toEqual([0, 0]);
  connection.unblock(1);
  outbox.sendAside(Uint8Array.of(4, 5, 6));
  expect([outbox.takenBytes, connection.unconfirmedBytes]).toEqual([0, 3]);
  expect(() => outbox.sendAside(Uint8Array.of(7))).toThrow();
  outbox.send(Uint8Array.of(8, 9), 0, 2);
  expect([outbox.takenBytes, outbox.keptBytes]).toEqual([0, 2]);
  connection.unblock(1);
  outbox.flush();
  expect([outbox.takenBytes, connection.unconfirmedBytes]).toEqual([0, 2]);
  connection.unblock(10);
  expect(outbox.takenBytes).toBe(2);
  outbox.skip(100);
  expect(outbox.takenBytes).toBe(102);
  expect(connection.got).toEqual([1, 2, 3, 4, 5, 6, 8, 9]);
});

test('nothing is kept for a client that is gone', () => {
  const connection = new Connection();
  const outbox = new Outbox(connection as unknown as Exchange);
  outbox.send(new Uint8Array(100), 0, 100);
  expect(outbox.keptBytes).toBeGreaterThan(0);
  outbox.clear();
  expect(outbox.keptBytes).toBe(0);
});

/** As uWebSockets.js: what did not leave shows at the next write. */
class LateConnection extends Connection {
  #isFull = false;

  override write(_data: Uint8Array, start: number, end: number): number {
    if (this.isBlocked || start === end) return 0;
    this.isBlocked = this.#isFull;
    this.room -= end - start;
    this.#isFull = this.room < 0;
    return end - start;
  }
}

test.each([
  ['a long answer that leaves some behind', 100_000, 99_990, true],
  ['a long answer that fits', 100_000, 100_000, false],
  ['a short answer, which needs not ask', 1000, 999, false],
])('the last bytes tell what became of those before them: %s', (_, length, room, isBlocked) => {
  const connection = new LateConnection();
  connection.room = room;
  const outbox = new Outbox(connection as unknown as Exchange);
  outbox.send(new Uint8Array(length), 0, length, true);
  expect(connection.isBlocked).toBe(isBlocked);
  // The first asking byte learnt it; the other asks again once the connection is writable.
  expect(outbox.keptBytes).toBe(isBlocked ? 1 : 0);
});
