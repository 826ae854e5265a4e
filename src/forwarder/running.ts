/** What a forwarder keeps of the attempts it runs. Types only; forwarder threads. */
import type { ReplicaCall } from './replica-call.ts';

/** The attempt of one slot, alone or in a batch. */
export interface Running {
  readonly slot: number;
  readonly lease: number;
  /** The client has left, or the scheduler wants the attempt no more. */
  abort(): void;
}

export interface RunningOwner {
  /** The request is no longer with this forwarder. */
  onSettled(running: Running): void;
  /** All requests of the call are settled, and nothing of its HTTP exchange is left. */
  onDone(call: ReplicaCall): void;
}
