/**
 * What is kept of the part of a stream that its client has, so that another replica can go on behind
 * it: its text (delivered-text.ts) or its token ids (delivered-ids.ts). Types only; forwarder threads.
 */
import type { StreamChunk } from '../protocol/stream-chunk.ts';

export interface Delivered {
  /** An attempt begins: what was not confirmed is gone. */
  begin(): void;
  /** Takes what `chunk` found in an event. */
  note(data: Uint8Array, chunk: StreamChunk, hasFinish: boolean): void;
  /** What was taken so far is on its way to the client. */
  confirm(): void;
  /** Forgets what was not confirmed. */
  withdraw(): void;
  /** The last event is not given to the client before what follows is known. */
  readonly isWaiting: boolean;
  /** Tokens of the current attempt; -1: unknown. */
  readonly came: number;
  /** Of the prompt; -1: unknown. */
  readonly promptTokens: number;
  readonly canContinue: boolean;
  /** There is nothing to go on behind. */
  readonly isEmpty: boolean;
  /** The confirmed part, as it goes into a body; valid until the next call. */
  readonly bytes: Buffer;
}
