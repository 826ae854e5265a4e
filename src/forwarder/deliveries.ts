/**
 * The deliveries of one forwarder (delivery.ts), by slot. Forwarder threads.
 *
 * One is kept from the first attempt of its request on until the slot is settled; nobody says so of a
 * request that is with the scheduler, so those are looked at now and then.
 */
import { type ContinuationPlan, planContinuation } from '../protocol/continuation.ts';
import { routeOf } from '../protocol/routes.ts';
import { RequestFlag, SlotState } from '../shm/request-slots.layout.ts';
import { generationOf, type RequestSlots } from '../shm/request-slots.ts';
import type { ModelRow } from '../shm/threads.ts';
import { Delivery } from './delivery.ts';

interface Kept {
  readonly generation: number;
  readonly delivery: Delivery;
}

export class Deliveries {
  readonly #slots: RequestSlots;
  readonly #models: readonly ModelRow[];
  readonly #kept = new Map<number, Kept>();
  /** Slots of those that are with the scheduler. */
  readonly #resuming = new Set<number>();

  constructor(slots: RequestSlots, models: readonly ModelRow[]) {
    this.#slots = slots;
    this.#models = models;
  }

  /** The one of an earlier attempt of the request. */
  find(slot: number, lease: number): Delivery | undefined {
    const kept = this.#kept.get(slot);
    this.#resuming.delete(slot);
    return kept?.generation === generationOf(lease) ? kept.delivery : undefined;
  }

  /** A new one, for a request that begins with `body`; undefined where nothing can be continued. */
  open(slot: number, lease: number, body: Uint8Array | null): Delivery | undefined {
    this.#forget(slot);
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const rule = this.#models[words[row + at.model] as number]?.continuation;
    const isStream = ((words[row + at.flags] as number) & RequestFlag.stream) !== 0;
    if (rule === undefined || rule.mode === 'off' || !isStream || body === null) return undefined;
    if (words[row + at.choices] !== 1) return undefined;
    const plan = this.#planOf(row, body);
    if (plan === undefined) return undefined;
    const delivery = new Delivery(plan, rule.bytesMax);
    this.#kept.set(slot, { generation: generationOf(lease), delivery });
    return delivery;
  }

  /** The attempt is over. Where its request is not, the next one may have begun already. */
  release(slot: number): void {
    if (!this.#kept.has(slot)) return;
    this.#resuming.add(slot);
    this.#forgetIfOver(slot);
  }

  /** Forgets those whose requests the scheduler has ended. */
  sweep(): void {
    for (const slot of this.#resuming) this.#forgetIfOver(slot);
  }

  #forgetIfOver(slot: number): void {
    const kept = this.#kept.get(slot);
    const state = this.#slots.state(slot);
    const isSame = kept?.generation === generationOf(this.#slots.lease(slot));
    if (isSame && state !== SlotState.settled && state !== SlotState.free) return;
    this.#forget(slot);
  }

  #forget(slot: number): void {
    this.#kept.delete(slot);
    this.#resuming.delete(slot);
  }

  #planOf(row: number, body: Uint8Array): ContinuationPlan | undefined {
    const { words, at } = this.#slots;
    const { shape } = routeOf(words[row + at.route] as number);
    if (shape !== 'openai-chat' && shape !== 'openai-completions') return undefined;
    const plan = planContinuation(body, shape);
    return typeof plan === 'string' ? undefined : plan;
  }
}
