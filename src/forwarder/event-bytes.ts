/** Bytes of events that are not where they came. Pure; forwarder threads. */
import { Buffer } from 'node:buffer';
import type { SseEvent } from '../protocol/sse-scanner.ts';

const lf = 0x0a;
const cr = 0x0d;
const oneLine = Buffer.from('\n');
const twoLines = Buffer.from('\n\n');
const nothing = Buffer.alloc(0);

/** A copy of the event; one that lacks its blank line gets it, or a client would never be given it. */
export function copyOf(event: SseEvent): Buffer {
  const bytes = event.bytes.subarray(event.start, event.end);
  return Buffer.concat([bytes, event.terminated ? nothing : terminatorOf(event)]);
}

function terminatorOf(event: SseEvent): Uint8Array {
  const last = event.bytes[event.end - 1];
  return last === lf || last === cr ? oneLine : twoLines;
}
