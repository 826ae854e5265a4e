/** Who waits for adapters and who uses them: recounts of the slot table. Main thread; only reads. */
import type { SharedMemory } from '../shm/memory.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { RequestSlots } from '../shm/request-slots.ts';

export class LoraDemand {
  readonly #slots: RequestSlots;

  constructor(memory: SharedMemory) {
    this.#slots = new RequestSlots(memory.slots, memory.size.slots);
  }

  /** By adapter, counted from 1: when the first of those came that wait for it, in microseconds. */
  waiting(model: number): Map<number, number> {
    const { at, count, words } = this.#slots;
    const since = new Map<number, number>();
    for (let slot = 0; slot < count; slot++) {
      const state = this.#slots.state(slot);
      if (state !== SlotState.queued && state !== SlotState.resuming) continue;
      const row = this.#slots.row(slot);
      const adapter = words[row + at.adapter] as number;
      if (words[row + at.model] !== model || adapter === 0) continue;
      const arrivedUs = this.#slots.readTime(slot, at.arrivedUs);
      since.set(adapter, Math.min(arrivedUs, since.get(adapter) ?? Number.POSITIVE_INFINITY));
    }
    return since;
  }

  /** Requests for the adapter that the replica of the row has, hedges included. */
  running(replica: number, model: number, adapter: number): number {
    const { at, count, words } = this.#slots;
    let running = 0;
    for (let slot = 0; slot < count; slot++) {
      const state = this.#slots.state(slot);
      if (state !== SlotState.dispatched && state !== SlotState.streaming) continue;
      const row = this.#slots.row(slot);
      if (words[row + at.model] !== model || words[row + at.adapter] !== adapter) continue;
      const isThere =
        words[row + at.replica] === replica || words[row + at.hedgeReplica] === replica;
      if (isThere) running++;
    }
    return running;
  }
}
