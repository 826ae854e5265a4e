/** The other thread of ring.ts: waits at its gate, then sends or echoes. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { RequestRingProducer, type RequestRingSize } from '../../src/shm/request-ring.ts';
import { ReplyRingLayout } from '../../src/shm/rings.layout.ts';
import { SpscConsumer, SpscProducer } from '../../src/shm/spsc-ring.ts';

export interface PeerTask {
  readonly role: 'ring sender' | 'ring echo' | 'port sender' | 'port echo';
  readonly gate: Int32Array;
  readonly messages: number;
  readonly region?: SharedArrayBuffer;
  readonly size?: RequestRingSize;
  readonly index?: number;
  readonly there?: SharedArrayBuffer;
  readonly back?: SharedArrayBuffer;
  readonly capacity?: number;
  readonly port?: MessagePort;
}

const roles: Record<PeerTask['role'], (task: PeerTask) => void> = {
  'ring sender'({ region, size, index, messages }) {
    const ring = new RequestRingProducer(region!, size!, index!);
    for (let i = 0; i < messages; ) if (ring.push(0, i, i)) i++;
  },
  'ring echo'({ there, back, capacity, messages }) {
    const into = new SpscConsumer(ReplyRingLayout, there!, capacity!);
    const out = new SpscProducer(ReplyRingLayout, back!, capacity!);
    for (let i = 0; i < messages; i++) {
      while (into.peek() < 0);
      into.advance();
      out.words[out.begin() + out.at.slot] = i;
      out.commit();
    }
  },
  'port sender'({ port, messages }) {
    for (let i = 0; i < messages; i++) port!.postMessage(i);
  },
  'port echo'({ port }) {
    port!.on('message', (value) => port!.postMessage(value));
  },
};

const task = workerData as PeerTask;
parentPort?.postMessage('ready');
Atomics.wait(task.gate, 0, 0);
roles[task.role](task);
