/** Bytes of events that are not passed on where they came. Pure; forwarder threads. */
import { Buffer } from 'node:buffer';
import { type Edit, edited, noEdits } from '../protocol/byte-edits.ts';
import type { SseEvent } from '../protocol/sse-scanner.ts';

const lf = 0x0a;
const cr = 0x0d;
const space = 0x20;
const oneLine = Buffer.from('\n');
const twoLines = Buffer.from('\n\n');
const dataField = Buffer.from('data: ');

/**
 * A copy of the event with `edits` made in its data. One that lacks its blank line gets it, or a client
 * would never be given it; several data lines become one.
 */
export function copyOf(event: SseEvent, edits: readonly Edit[] = noEdits): Buffer {
  const { bytes, start, end, data, dataStart, dataEnd } = event;
  if (edits.length === 0 || data === bytes) {
    return edited(bytes, start, end, edits, event.terminated ? undefined : terminatorOf(event));
  }
  const payload = edited(data, dataStart, dataEnd, edits, twoLines);
  // Outside of strings a line end is white space, and inside of them JSON has none.
  for (let i = payload.indexOf(lf); i < payload.length - 2; i = payload.indexOf(lf, i + 1)) {
    payload[i] = space;
  }
  return Buffer.concat([dataField, payload]);
}

function terminatorOf(event: SseEvent): Uint8Array {
  const last = event.bytes[event.end - 1];
  return last === lf || last === cr ? oneLine : twoLines;
}
