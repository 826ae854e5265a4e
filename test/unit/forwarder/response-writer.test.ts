import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Credit } from '../../../src/forwarder/credit.ts';
import { Notice, Output, type OutputOwner } from '../../../src/forwarder/output.ts';
import { ResponseWriter } from '../../../src/forwarder/response-writer.ts';
import { ByteRingConsumer, ByteRingProducer, createByteRing } from '../../../src/shm/byte-ring.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';
import { ResponseKind, readUint32 } from '../../../src/shm/response-records.ts';

const slotCount = 8;

class Owner implements OutputOwner {
  completes(): void {}
  claims = 0;
  settlements = 0;
  refuses = false;
  claimSettlement(): boolean {
    this.claims++;
    return !this.refuses;
  }
  settled(): void {
    this.settlements++;
  }
  handOvers = 0;
  handedOver(): void {
    this.handOvers++;
  }
  written(): void {}
}

function fixture(ringBytes: number, window: number) {
  const region = createByteRing(ringBytes);
  const slots = new RequestSlots(createRequestSlots(slotCount), slotCount);
  const credit = new Credit(slots, window);
  let queued = 0;
  const writer = new ResponseWriter(new ByteRingProducer(region, ringBytes), credit, () => {
    queued++;
  });
  const consumer = new ByteRingConsumer(region, ringBytes);
  const consume = (slot: number, bytes: number): void => {
    const at = slots.row(slot) + slots.at.consumedBytes;
    slots.words[at] = (slots.words[at]! + bytes) | 0;
  };
  const open = (slot: number, owner = new Owner()): Output =>
    new Output(owner, slot, 64, slots.row(slot), credit.consumed(slots.row(slot)));
  const read = (): { kind: number; slot: number; bytes: Buffer } | undefined => {
    if (!consumer.peek()) return undefined;
    const { kind, slot, payload, length, data } = consumer;
    const bytes = Buffer.from(data.subarray(payload, payload + length));
    consumer.advance();
    return { kind, slot, bytes };
  };
  return { writer, credit, consume, open, read, queuedCount: () => queued };
}

test('a hand-over comes behind the last byte and leaves no record', () => {
  const { writer, consume, open, read } = fixture(4096, 8);
  const owner = new Owner();
  const output = open(3, owner);
  output.push(Buffer.from('12345678'));
  output.push(Buffer.from('9'));
  output.notice = Notice.handOver;
  writer.enqueue(output);
  writer.flush();
  expect(read()).toMatchObject({ kind: ResponseKind.chunk, bytes: Buffer.from('123456789') });
  expect(owner).toMatchObject({ handOvers: 1, claims: 0, settlements: 0 });
  expect(read()).toBeUndefined();
  consume(3, 9);
});

test('all of a turn leaves as one record, the head before it, the notice behind it', () => {
  const { writer, open, read } = fixture(4096, 1024);
  const owner = new Owner();
  const output = open(3, owner);
  output.head = Buffer.from('HEAD');
  for (const part of ['a', 'bc', '', 'def']) output.push(Buffer.from(part));
  output.notice = Notice.end;
  output.error = 71;
  writer.enqueue(output);
  writer.enqueue(output);
  expect(writer.flush()).toBe(true);
  const records = [read(), read(), read()];
  expect(records.map((record) => record?.kind)).toEqual([
    ResponseKind.head,
    ResponseKind.chunk,
    ResponseKind.end,
  ]);
  expect(records[1]?.bytes.toString()).toBe('abcdef');
  expect(readUint32(records[2]!.bytes, 0)).toBe(71);
  expect(read()).toBeUndefined();
  expect([owner.claims, owner.settlements]).toEqual([1, 1]);
  expect(writer.flush()).toBe(false);
});

test('only what completes an answer is its last part', () => {
  for (const [error, kind] of [
    [0, ResponseKind.last],
    [71, ResponseKind.chunk],
  ] as const) {
    const { writer, open, read } = fixture(4096, 1024);
    const output = open(3, new Owner());
    output.push(Buffer.from('a'));
    output.notice = Notice.end;
    output.error = error;
    writer.enqueue(output);
    writer.flush();
    expect([read()?.kind, read()?.kind]).toEqual([kind, ResponseKind.end]);
  }
});

test('a slot that is no longer ours gets no settling record', () => {
  const { writer, open, read } = fixture(4096, 1024);
  const owner = new Owner();
  owner.refuses = true;
  const output = open(0, owner);
  output.notice = Notice.end;
  writer.enqueue(output);
  writer.flush();
  expect(read()).toBeUndefined();
  expect([owner.claims, owner.settlements]).toEqual([1, 0]);
});

test('without credit a stream waits, and others pass', () => {
  const { writer, open, read, consume } = fixture(64 * 1024, 100);
  const slow = open(0);
  const fast = open(1);
  slow.push(Buffer.alloc(150, 's'));
  writer.enqueue(slow);
  writer.flush();
  expect(read()?.bytes.length).toBe(150); // the record that crosses the window
  slow.push(Buffer.alloc(50, 't'));
  fast.push(Buffer.alloc(50, 'f'));
  writer.enqueue(slow);
  writer.enqueue(fast);
  writer.flush();
  expect(read()).toMatchObject({ slot: 1 });
  expect(read()).toBeUndefined();
  consume(0, 50);
  writer.recheck();
  writer.flush();
  expect(read()).toBeUndefined();
  consume(0, 1);
  writer.recheck();
  writer.flush();
  expect(read()).toMatchObject({ slot: 0, bytes: Buffer.alloc(50, 't') });
});

test('what is withdrawn is not written', () => {
  const { writer, open, read } = fixture(4096, 1024);
  const output = open(0);
  output.head = Buffer.from('HEAD');
  output.push(Buffer.from('body'));
  output.notice = Notice.whole;
  writer.enqueue(output);
  output.withdraw();
  writer.flush();
  expect(read()).toBeUndefined();
});

test('any streams through any ring keep their bytes, their order and one notice each', () => {
  const piece = fc.record({
    slot: fc.nat(slotCount - 1),
    length: fc.integer({ min: 0, max: 700 }),
  });
  const step = fc.oneof(
    piece.map((value) => ({ ...value, kind: 'push' as const })),
    fc.nat(4).map((count) => ({ kind: 'read' as const, count })),
    fc.constant({ kind: 'flush' as const }),
  );
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 80 }),
      fc.constantFrom(256, 1024, 4096),
      fc.constantFrom(64, 500),
      (steps, ringBytes, window) => {
        const { writer, open, read, consume } = fixture(ringBytes, window);
        const owners = Array.from({ length: slotCount }, () => new Owner());
        const outputs = owners.map((owner, slot) => open(slot, owner));
        const sent = outputs.map(() => [] as Buffer[]);
        const got = outputs.map(() => [] as Buffer[]);
        const ends = outputs.map(() => 0);
        let stamp = 0;
        const take = (): boolean => {
          const record = read();
          if (record === undefined) return false;
          expect(ends[record.slot]).toBe(0);
          if (record.kind === ResponseKind.end) ends[record.slot]!++;
          else {
            got[record.slot]!.push(record.bytes);
            consume(record.slot, record.bytes.length);
          }
          return true;
        };
        for (const action of steps) {
          if (action.kind === 'push') {
            const bytes = Buffer.alloc(action.length, stamp++ & 0xff);
            sent[action.slot]!.push(bytes);
            outputs[action.slot]!.push(bytes);
            writer.enqueue(outputs[action.slot]!);
          } else if (action.kind === 'read') {
            for (let i = 0; i < action.count; i++) take();
          } else writer.flush();
        }
        for (const output of outputs) {
          output.notice = Notice.end;
          writer.enqueue(output);
        }
        for (let idle = 0; idle < 3; ) {
          writer.recheck();
          writer.flush();
          idle = take() ? 0 : idle + 1;
          while (take());
        }
        for (const slot of outputs.keys()) {
          expect(Buffer.concat(got[slot]!).equals(Buffer.concat(sent[slot]!))).toBe(true);
        }
        expect(ends).toEqual(ends.map(() => 1));
        expect(owners.map(({ settlements }) => settlements)).toEqual(ends);
      },
    ),
    { numRuns: 300, seed },
  );
});

test('an answer in one record has been produced when its slot is settled', () => {
  const { writer, credit, open, read } = fixture(4096, 8);
  let atClaim = -1;
  class Claiming extends Owner {
    override claimSettlement(): boolean {
      atClaim = output.produced;
      return super.claimSettlement();
    }
  }
  const output: Output = open(3, new Claiming());
  const before = credit.unconsumed(output);
  output.head = Buffer.from('HEAD');
  output.push(Buffer.from('body'));
  output.notice = Notice.whole;
  writer.enqueue(output);
  writer.flush();
  expect(read()).toMatchObject({ kind: ResponseKind.whole, bytes: Buffer.from('HEADbody') });
  expect(atClaim - before).toBe(4);
});
