/**
 * What a forwarder tells an acceptor through the response ring, and the head that opens an answer.
 *
 *   head    ResponseHead bytes, then the header blob; the body follows in chunks
 *   chunk   body bytes
 *   last    the rest of the body of an answer that is complete; `end` follows, whoever writes it
 *   whole   ResponseHead bytes, header blob, then the complete body; settles
 *   end     uint32 error number (0: complete), uint32 retry-after ms; settles
 * After `whole` or `end` the slot is settled and the acceptor frees it.
 */
export const ResponseKind = { head: 1, chunk: 2, last: 3, whole: 4, end: 5 } as const;
export type ResponseKind = (typeof ResponseKind)[keyof typeof ResponseKind];

/** Bytes of an encoded ResponseHead. */
export const responseHeadBytes = 16;

export interface ResponseHead {
  status: number;
  /** Bytes of the header blob that follows (protocol/header-blob.ts). */
  headerLength: number;
  /** Content-length of the replica's answer, or -1. */
  contentLength: number;
  /** Row of the replica that answers: that of the slot may be another by the time the head is read. */
  replica: number;
}

/** Writes the head at `offset` of the ring's data. */
export function writeResponseHead(data: Uint8Array, offset: number, head: ResponseHead): void {
  writeUint32(data, offset, head.status);
  writeUint32(data, offset + 4, head.headerLength);
  writeUint32(data, offset + 8, head.contentLength);
  writeUint32(data, offset + 12, head.replica);
}

export function readResponseHead(data: Uint8Array, offset: number, into: ResponseHead): void {
  into.status = readUint32(data, offset);
  into.headerLength = readUint32(data, offset + 4);
  into.contentLength = readUint32(data, offset + 8) | 0;
  into.replica = readUint32(data, offset + 12);
}

export function writeUint32(data: Uint8Array, offset: number, value: number): void {
  data[offset] = value;
  data[offset + 1] = value >>> 8;
  data[offset + 2] = value >>> 16;
  data[offset + 3] = value >>> 24;
}

export function readUint32(data: Uint8Array, offset: number): number {
  return (
    (data[offset]! |
      (data[offset + 1]! << 8) |
      (data[offset + 2]! << 16) |
      (data[offset + 3]! << 24)) >>>
    0
  );
}
