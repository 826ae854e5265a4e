/**
 * The deliveries of one forwarder (delivery.ts), by slot. Forwarder threads.
 *
 * One is kept from the first attempt of its request on until the slot is settled; nobody says so of a
 * request that is with the scheduler, so those are looked at now and then.
 */
import {
  type ContinuationMode,
  type ContinuationPlan,
  planContinuation,
  planUsage,
} from '../protocol/continuation.ts';
import { routeOf } from '../protocol/routes.ts';
import { Asks } from '../protocol/stream-options.ts';
import type { LimitTable } from '../shm/limits.ts';
import { RequestFlag, SlotState } from '../shm/request-slots.layout.ts';
import { generationOf, type RequestSlots } from '../shm/request-slots.ts';
import type { ModelRow } from '../shm/threads.ts';
import { Delivery, idBodyBytesMax } from './delivery.ts';

interface Kept {
  readonly generation: number;
  /** That of the first exchange, and that of its hedge. */
  readonly ofExchanges: Delivery[];
}

/** A token has so many bytes at most, with what is around it in a request; of most it is a quarter. */
const bytesPerToken = 16;
const bytesPerId = 4;
const sweepEveryUs = 20_000;

export class Deliveries {
  readonly #slots: RequestSlots;
  readonly #limits: LimitTable;
  models: readonly ModelRow[];
  readonly #kept = new Map<number, Kept>();
  /** Slots of those that are with the scheduler. */
  readonly #resuming = new Set<number>();
  /** When they are looked at next. */
  #sweepUs = 0;

  constructor(slots: RequestSlots, models: readonly ModelRow[], limits: LimitTable) {
    this.#slots = slots;
    this.#limits = limits;
    this.models = models;
  }

  /** Some have to be looked at. */
  get waits(): boolean {
    return this.#resuming.size > 0;
  }

  /** The one of the earlier attempts of the request, which has begun the answer. */
  find(slot: number, lease: number): Delivery | undefined {
    this.#resuming.delete(slot);
    return this.#ofRequest(slot, lease)?.ofExchanges.find(({ isContinued }) => isContinued);
  }

  /** One more like that of the first exchange, for the hedge beside it: one of them begins the answer. */
  openHedge(slot: number, lease: number): Delivery | undefined {
    const ofExchanges = this.#ofRequest(slot, lease)?.ofExchanges;
    const first = ofExchanges?.[0];
    if (first === undefined) return undefined;
    const delivery = new Delivery(first.plan, first.bytesMax);
    ofExchanges?.push(delivery);
    return delivery;
  }

  #ofRequest(slot: number, lease: number): Kept | undefined {
    const kept = this.#kept.get(slot);
    return kept?.generation === generationOf(lease) ? kept : undefined;
  }

  /** A new one, for a request that begins with `body`; undefined where nothing can be continued. */
  open(slot: number, lease: number, body: Uint8Array | null): Delivery | undefined {
    this.#forget(slot);
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const model = this.models[words[row + at.model] as number];
    const isStream = ((words[row + at.flags] as number) & RequestFlag.stream) !== 0;
    if (model === undefined || !isStream || body === null) return undefined;
    const rule = model.continuation ?? { mode: 'off', bytesMax: 0 };
    const mayContinue = rule.mode !== 'off' && words[row + at.choices] === 1;
    const toContinue = mayContinue ? this.#planOf(row, body, rule.mode, rule.bytesMax) : undefined;
    const plan = toContinue ?? this.#usagePlan(row, body, model);
    if (plan === undefined) return undefined;
    const delivery = new Delivery(plan, rule.bytesMax);
    this.#kept.set(slot, { generation: generationOf(lease), ofExchanges: [delivery] });
    return delivery;
  }

  /** The attempt is over. Where its request is not, the next one may have begun already. */
  release(slot: number): void {
    if (!this.#kept.has(slot)) return;
    this.#resuming.add(slot);
    this.#forgetIfOver(slot);
  }

  /** Forgets those whose requests the scheduler has ended, now and then. */
  sweep(us: number): void {
    if (us < this.#sweepUs) return;
    this.#sweepUs = us + sweepEveryUs;
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

  /**
   * Answers of other shapes tell their usage unasked. However long the body is: a bound here would be the length
   * from which streams are for nothing. All of them together are no more than the arena holds.
   */
  #usagePlan(row: number, body: Uint8Array, model: ModelRow) {
    const { words, at } = this.#slots;
    const asked = this.#askedUsage(row, model);
    const { shape } = routeOf(words[row + at.route] as number);
    const isOpenAi = shape === 'openai-chat' || shape === 'openai-completions';
    if (asked === 'off' || !isOpenAi) return undefined;
    // In a chunk it is that of its choice.
    const isContinuous = asked === 'continuous' && words[row + at.choices] === 1;
    const hasAsked = ((words[row + at.flags] as number) & RequestFlag.includeUsage) !== 0;
    if (hasAsked && !isContinuous) return undefined;
    return planUsage(body, shape, isContinuous ? Asks.usageAlways : Asks.usageAtEnd);
  }

  /** Where it is billed or limited by what it uses it is asked; the answer of many engines is silent else. */
  #askedUsage(row: number, { streamUsage = 'auto', price }: ModelRow) {
    if (streamUsage !== 'auto') return streamUsage;
    const { words, at } = this.#slots;
    const isLimited =
      this.#countsTokens(words[row + at.limitRow] as number) ||
      this.#countsTokens(words[row + at.limitModelRow] as number);
    return price !== undefined || isLimited ? 'end' : 'off';
  }

  /** Rows of requests and concurrency alone do not. */
  #countsTokens(limitRow: number): boolean {
    if (limitRow < 0) return false;
    const { doubles, at } = this.#limits;
    const word = this.#limits.word(limitRow);
    return doubles[(word + at.inputRate) >> 1] !== 0 || doubles[(word + at.outputRate) >> 1] !== 0;
  }

  #planOf(
    row: number,
    body: Uint8Array,
    mode: ContinuationMode,
    bytesMax: number,
  ): ContinuationPlan | undefined {
    const { words, at } = this.#slots;
    // Its ids would not fit, and they are not asked for in vain.
    const isTooLong =
      body.length > idBodyBytesMax || body.length / bytesPerToken > bytesMax / bytesPerId;
    if (mode === 'token_ids' && isTooLong) return undefined;
    const { shape } = routeOf(words[row + at.route] as number);
    if (shape !== 'openai-chat' && shape !== 'openai-completions') return undefined;
    const plan = planContinuation(body, shape, mode);
    return typeof plan === 'string' ? undefined : plan;
  }
}
