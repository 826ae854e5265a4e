/** What rings.test.ts hands to its threads. */
import { i32 } from '../../src/shm/layout.ts';
import { defineSpscLayout } from '../../src/shm/spsc-ring.ts';

export const testRing = defineSpscLayout('litmus_ring', 'producer', 'consumer', {
  number: i32('producer', 'Number of the record.'),
  check: i32('producer', 'Checksum of the number.'),
});

export interface Task {
  readonly role:
    | 'request producer'
    | 'request consumer'
    | 'record producer'
    | 'record consumer'
    | 'byte producer'
    | 'byte consumer'
    | 'slot user';
  readonly region: SharedArrayBuffer;
  readonly capacity: number;
  readonly producers: number;
  readonly index: number;
  readonly seed: number;
  /** A thread goes on after its time until it has done this much. */
  readonly messagesMin: number;
  /** Word 0 becomes 1 when producers stop, word 1 counts those that have, then one total each. */
  readonly control: Int32Array;
}
