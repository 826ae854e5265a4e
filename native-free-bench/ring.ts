/**
 * Question: what does one message through each ring cost, in throughput and one way?
 *
 * Throughput: producer and consumer alternate on one thread, so the figure is the code alone; then
 * with the producers on threads of their own, where it includes what the machine charges for sharing
 * lines (and, with fewer cores than threads, for switching). One way: half of a round trip between
 * two threads that both spin, so it
 * needs two free cores: on a busy machine it shows the time slice. Subtract nothing. Baseline of the same run: a MessagePort.
 */
import { once } from 'node:events';
import { MessageChannel, Worker } from 'node:worker_threads';
import { ByteRingConsumer, ByteRingProducer, createByteRing } from '../src/shm/byte-ring.ts';
import {
  createRequestRing,
  RequestRingConsumer,
  RequestRingProducer,
} from '../src/shm/request-ring.ts';
import { ReplyRingLayout } from '../src/shm/rings.layout.ts';
import { createSpscRing, SpscConsumer, SpscProducer } from '../src/shm/spsc-ring.ts';
import { createBench, type Measurement } from './harness.ts';
import type { PeerTask } from './threads/ring-peer.ts';

const bench = createBench('ring', 'What does one message through a ring cost?');
const producers = bench.parameter('producers', { smoke: 2, full: 3 });
const messages = bench.parameter('messages', { smoke: 2_000, full: 1_000_000 });
const roundTrips = bench.parameter('round_trips', { smoke: 50, full: 20_000 });
const payload = bench.parameter('payload_bytes', { smoke: 64, full: 256 });
const capacity = 1024;
const batch = 64;
const peer = new URL('./threads/ring-peer.ts', import.meta.url);

measureAlone();
const port = await portThroughput();
await requestRingThreads(port);
const portRound = await portRoundTrip();
await ringRoundTrip(portRound);
bench.finish();

/** Bursts of `batch` messages in and out on one thread. */
function measureAlone(): void {
  const size = { capacity, producers: 1 };
  const region = createRequestRing(size);
  const requestIn = new RequestRingProducer(region, size, 0);
  const requestOut = new RequestRingConsumer(region, size);
  bench.measure('MPSC, one thread, push and consume', batch, () => {
    for (let i = 0; i < batch; i++) requestIn.push(0, i, i);
    let sum = 0;
    for (; requestOut.peek(); requestOut.advance()) sum += requestOut.slot;
    return sum;
  });
  const records = createSpscRing(ReplyRingLayout, capacity);
  const recordIn = new SpscProducer(ReplyRingLayout, records, capacity);
  const recordOut = new SpscConsumer(ReplyRingLayout, records, capacity);
  bench.measure('SPSC, one thread, write and read', batch, () => {
    for (let i = 0; i < batch; i++) {
      recordIn.words[recordIn.begin() + recordIn.at.slot] = i;
      recordIn.commit();
    }
    let sum = 0;
    for (let cell = recordOut.peek(); cell >= 0; cell = recordOut.peek()) {
      sum += recordOut.words[cell + recordOut.at.slot]!;
      recordOut.advance();
    }
    return sum;
  });
  const bytesTotal = 2 ** Math.ceil(Math.log2((payload + 32) * batch * 2));
  const bytes = createByteRing(bytesTotal);
  const bytesIn = new ByteRingProducer(bytes, bytesTotal);
  const bytesOut = new ByteRingConsumer(bytes, bytesTotal);
  const chunk = new Uint8Array(payload).fill(1);
  const copied = new Uint8Array(payload);
  bench.measure(`byte ring, one thread, ${payload} B in and out`, batch, () => {
    for (let i = 0; i < batch; i++) {
      bytesIn.data.set(chunk, bytesIn.reserve(payload));
      bytesIn.commit(1, i, i, payload);
    }
    let sum = 0;
    for (; bytesOut.peek(); bytesOut.advance()) {
      copied.set(bytesOut.data.subarray(bytesOut.payload, bytesOut.payload + bytesOut.length));
      sum += copied[0]!;
    }
    return sum;
  });
}

function startPeer(task: Omit<PeerTask, 'gate'>, transfer: MessageChannel['port1'][] = []) {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(peer, {
    workerData: { ...task, gate },
    transferList: transfer as never,
  });
  const open = (): void => {
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
  };
  return { worker, ready: once(worker, 'message'), open };
}

function recordRun(label: string, ns: number, ops: number, base?: Measurement): Measurement {
  const each = ns / ops;
  const measurement: Measurement = {
    ...{ label, nsPerOp: each, nsPerOpMin: each, nsPerOpMax: each, ops },
    ...(base && { ratio: each / base.nsPerOp }),
  };
  bench.record(measurement);
  return measurement;
}

function now(): number {
  return Number(process.hrtime.bigint());
}

async function portThroughput(): Promise<Measurement> {
  const { port1, port2 } = new MessageChannel();
  const { ready, open } = startPeer({ role: 'port sender', port: port2, messages }, [port2]);
  await ready;
  let seen = 0;
  const done = new Promise<void>((resolve) => {
    port1.on('message', () => {
      if (++seen === messages) resolve();
    });
  });
  const start = now();
  open();
  await done;
  const elapsed = now() - start;
  port1.close();
  return recordRun('MessagePort, 1 producer thread', elapsed, messages);
}

async function requestRingThreads(base: Measurement): Promise<void> {
  for (const count of [1, producers]) {
    const size = { capacity, producers: count };
    const region = createRequestRing(size);
    const peers = Array.from({ length: count }, (_, index) =>
      startPeer({ role: 'ring sender', region, size, index, messages }),
    );
    await Promise.all(peers.map(({ ready }) => ready));
    const consumer = new RequestRingConsumer(region, size);
    const start = now();
    for (const { open } of peers) open();
    let seen = 0;
    while (seen < messages * count) {
      if (!consumer.peek()) continue;
      consumer.advance();
      seen++;
    }
    const label = `MPSC, ${count} producer thread${count > 1 ? 's' : ''}`;
    recordRun(label, now() - start, seen, base);
    bench.hash(seen);
    await Promise.all(peers.map(({ worker }) => worker.terminate()));
  }
}

async function portRoundTrip(): Promise<Measurement> {
  const { port1, port2 } = new MessageChannel();
  const { ready, open, worker } = startPeer({ role: 'port echo', port: port2, messages: 0 }, [
    port2,
  ]);
  await ready;
  open();
  const start = now();
  for (let i = 0; i < roundTrips; i++) {
    const answer = once(port1, 'message');
    port1.postMessage(i);
    await answer;
  }
  const elapsed = now() - start;
  port1.close();
  await worker.terminate();
  return recordRun('MessagePort, one way', elapsed, roundTrips * 2);
}

async function ringRoundTrip(base: Measurement): Promise<void> {
  const there = createSpscRing(ReplyRingLayout, capacity);
  const back = createSpscRing(ReplyRingLayout, capacity);
  const { ready, open, worker } = startPeer({
    ...{ role: 'ring echo' as const, there, back, capacity, messages: roundTrips },
  });
  await ready;
  open();
  const out = new SpscProducer(ReplyRingLayout, there, capacity);
  const into = new SpscConsumer(ReplyRingLayout, back, capacity);
  const start = now();
  for (let i = 0; i < roundTrips; i++) {
    out.words[out.begin() + out.at.slot] = i;
    out.commit();
    while (into.peek() < 0);
    into.advance();
  }
  recordRun('SPSC, one way, both threads spin', now() - start, roundTrips * 2, base);
  await worker.terminate();
}
