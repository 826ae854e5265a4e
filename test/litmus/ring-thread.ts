/**
 * Thread of rings.test.ts: one producer, one consumer, or one slot user, for a time or a count.
 *
 * Every message is checked against a checksum of what its producer meant to write; a thread that finds
 * a fault says so and stops. Random waits of up to 1 ms move the threads against each other.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { ByteRingConsumer, ByteRingProducer } from '../../src/shm/byte-ring.ts';
import { RequestRingConsumer, RequestRingProducer } from '../../src/shm/request-ring.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import {
  attemptOf,
  generationOf,
  leaseOf,
  RequestSlots,
  stateOf,
} from '../../src/shm/request-slots.ts';
import { SpscConsumer, SpscProducer } from '../../src/shm/spsc-ring.ts';
import { type Task, testRing } from './ring-task.ts';

const task = workerData as Task;
const { region, capacity, producers, index, control, messagesMin } = task;
const random = createPrng(task.seed);
const pause = new Int32Array(new SharedArrayBuffer(4));

const jitter = (): void => {
  const draw = random.below(2048);
  if (draw === 0) Atomics.wait(pause, 0, 0, random.below(1000) / 1000);
};
const isOver = (): boolean => Atomics.load(control, 0) === 1;
const checksum = (producer: number, number: number): number =>
  Math.imul(number ^ (producer << 20), 0x9e3779b1) >>> 4;

function fail(message: string): never {
  throw new Error(`${task.role} ${index}, seed ${task.seed}: ${message}`);
}

/** Sends numbers until the time is over and enough were sent; tells how many. */
function produce(send: (number: number) => boolean): void {
  let number = 0;
  for (let turns = 0; (turns & 255) !== 0 || !isOver() || number < messagesMin; turns++) {
    if (send(number)) number = (number + 1) & 0x7fffffff;
    else Atomics.wait(pause, 0, 0, 0.05);
    jitter();
  }
  Atomics.store(control, 2 + index, number);
  Atomics.add(control, 1, 1);
}

/** Receives until all producers have stopped and nothing is left. */
function consume(receive: () => readonly [producer: number, number: number] | undefined): number[] {
  const next = new Array<number>(producers).fill(0);
  for (;;) {
    const areStopped = Atomics.load(control, 1) === producers; // before the look
    const message = receive();
    if (message === undefined) {
      if (areStopped) return next;
      Atomics.wait(pause, 0, 0, 0.02);
      continue;
    }
    const [from, number] = message;
    if (number !== next[from]) fail(`${number} of producer ${from}, not ${next[from]}`);
    next[from]! += 1;
    jitter();
  }
}

function requestProducer(): undefined {
  const ring = new RequestRingProducer(region, { capacity, producers }, index);
  produce((number) => ring.push(index % 2 === 0 ? 0 : 1, number, checksum(index, number)));
}

function requestConsumer(): number[] {
  const ring = new RequestRingConsumer(region, { capacity, producers });
  return consume(() => {
    if (!ring.peek()) return undefined;
    const { kind, slot, lease } = ring;
    ring.advance();
    for (let from = kind; from < producers; from += 2) {
      if (lease === checksum(from, slot)) return [from, slot];
    }
    return fail('a message with a wrong checksum');
  });
}

function recordProducer(): undefined {
  const ring = new SpscProducer(testRing, region, capacity);
  produce((number) => {
    const cell = ring.begin();
    if (cell < 0) return false;
    ring.words[cell + ring.at.number] = number;
    ring.words[cell + ring.at.check] = checksum(0, number);
    ring.commit();
    return true;
  });
}

function recordConsumer(): number[] {
  const ring = new SpscConsumer(testRing, region, capacity);
  return consume(() => {
    const cell = ring.peek();
    if (cell < 0) return undefined;
    const number = ring.words[cell + ring.at.number]!;
    if (ring.words[cell + ring.at.check] !== checksum(0, number)) fail('a torn record');
    ring.advance();
    return [0, number];
  });
}

/** The bytes of record `number`: both threads draw them from the number alone. */
const bytesOf = (number: number): Prng => createPrng(number ^ task.capacity);

function byteProducer(): undefined {
  const ring = new ByteRingProducer(region, capacity);
  produce((number) => {
    const bytes = bytesOf(number);
    const length = bytes.below(ring.payloadMax + 1);
    const offset = ring.reserve(Math.min(length + bytes.below(8), ring.payloadMax));
    if (offset < 0) return false;
    let sum = 0;
    for (let i = 0; i < length; i++) {
      const byte = bytes.below(256);
      ring.data[offset + i] = byte;
      sum = (Math.imul(sum, 31) + byte) | 0;
    }
    ring.commit(number & 0xff, number, sum, length);
    return true;
  });
}

function byteConsumer(): number[] {
  const ring = new ByteRingConsumer(region, capacity);
  return consume(() => {
    if (!ring.peek()) return undefined;
    const number = ring.slot;
    const length = bytesOf(number).below(capacity / 2 - 16 + 1);
    let sum = 0;
    for (let i = 0; i < ring.length; i++) {
      sum = (Math.imul(sum, 31) + ring.data[ring.payload + i]!) | 0;
    }
    if (ring.length !== length || ring.lease !== sum || ring.kind !== (number & 0xff)) {
      fail('a torn record');
    }
    ring.advance();
    return [0, number];
  });
}

/**
 * User 0 owns free, reading and settled slots; it publishes and frees. All users race to start and to
 * settle what they find. Returns how many claims this user made and how many settlements it won.
 */
function slotUser(): number[] {
  const { free, reading, queued, dispatched, settled } = SlotState;
  const slots = new RequestSlots(region, capacity);
  let claims = 0;
  let won = 0;
  const claimsMin = index === 0 ? messagesMin : 0;
  for (let turns = 0; (turns & 255) !== 0 || !isOver() || claims < claimsMin; turns++) {
    const slot = random.below(capacity);
    const stamp = slots.stamp(slot);
    const lease = leaseOf(stamp);
    const state = stateOf(stamp);
    if (index === 0 && state === free) {
      const claimed = slots.claim(slot);
      if (generationOf(claimed) !== ((generationOf(lease) + 1) & 0x7fffff)) fail('a generation');
      if (!slots.transition(slot, claimed, reading, queued)) fail('a reader lost its slot');
      claims++;
    } else if (index === 0 && state === settled) {
      if (!slots.transition(slot, lease, settled, free)) fail('a settled slot moved');
    } else if (state === queued) {
      const started = slots.startAttempt(slot, lease);
      if (started >= 0 && attemptOf(started) !== 1) fail('an attempt');
    } else if (state === dispatched && slots.transition(slot, lease, dispatched, settled)) {
      won++;
      if (slots.transition(slot, lease, dispatched, settled)) fail('settled twice');
    }
    jitter();
  }
  return [claims, won];
}

const roles: Record<Task['role'], () => number[] | undefined> = {
  'request producer': requestProducer,
  'request consumer': requestConsumer,
  'record producer': recordProducer,
  'record consumer': recordConsumer,
  'byte producer': byteProducer,
  'byte consumer': byteConsumer,
  'slot user': slotUser,
};
parentPort?.postMessage('ready');
const seen = roles[task.role]() ?? [];
parentPort?.postMessage(seen);
