/** Who waits for adapters and who uses them: a recount of the slot table. Main thread; only reads. */
import { adaptersMax } from '../config/capacities.ts';
import type { SharedMemory } from '../shm/memory.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { RequestSlots } from '../shm/request-slots.ts';

/** Requests that wait for an adapter, counted from 1, of a model. */
export interface Wait {
  readonly model: number;
  readonly adapter: number;
  /** Row of the only replica that can serve them; -1: any can. */
  readonly pin: number;
  /** When the first of them was published to the scheduler, in microseconds. */
  readonly sinceUs: number;
}

export interface Demand {
  /** By a text that is the same for the same wait at every look. */
  readonly waits: ReadonlyMap<string, Wait>;
  /** Requests for the adapter, hedges included, run on the replica of the row. */
  isUsed(row: number, adapter: number): boolean;
}

const placeOf = (row: number, adapter: number): number => row * (adaptersMax + 1) + adapter;

export class LoraDemand {
  readonly #slots: RequestSlots;

  constructor(memory: SharedMemory) {
    this.#slots = new RequestSlots(memory.slots, memory.size.slots);
  }

  look(): Demand {
    const { at, count, words } = this.#slots;
    const waits = new Map<string, Wait>();
    const used = new Set<number>();
    for (let slot = 0; slot < count; slot++) {
      const state = this.#slots.state(slot);
      if (state === SlotState.free || state === SlotState.reading) continue;
      const row = this.#slots.row(slot);
      const adapter = words[row + at.adapter] as number;
      if (adapter === 0) continue;
      if (state === SlotState.queued || state === SlotState.resuming) {
        const model = words[row + at.model] as number;
        const pin = (words[row + at.pin] as number) - 1;
        const key = `${model} ${adapter} ${pin}`;
        const publishedUs = this.#slots.readTime(slot, at.publishedUs);
        const sinceUs = Math.min(publishedUs, waits.get(key)?.sinceUs ?? publishedUs);
        waits.set(key, { model, adapter, pin, sinceUs });
      } else if (state !== SlotState.settled) {
        used.add(placeOf(words[row + at.replica] as number, adapter));
        used.add(placeOf(words[row + at.hedgeReplica] as number, adapter));
      }
    }
    return { waits, isUsed: (row, adapter) => used.has(placeOf(row, adapter)) };
  }
}
