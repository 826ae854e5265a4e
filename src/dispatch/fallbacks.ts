/**
 * Fallbacks: to which other model a request goes on that its own cannot serve. Pure; nothing is allocated
 * per request.
 *
 * A model has two lists: one for requests that find no answer there, one for prompts that are too long for
 * it (or for one of the first list). A request goes down those of the model it came for, each place once, so that it comes to an end; it
 * goes on nowhere once its client has a part of an answer. With a cascade it may go on once to a larger
 * model, from the one it came for, because that one's reply was discarded; from there on it is as if it had
 * come for the larger one. Who goes on is kept here until the next tick, then arrives at the other model as
 * any request does: its deadline and the time it has waited go on, the attempts of a model are counted anew.
 */
import { GoOn } from '../lib/go-on.ts';
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import {
  type BrainConfig,
  type DecisionSink,
  type FallbackList,
  FallbackReason,
  type ModelRules,
  Refusal,
} from './decisions.ts';
import { Phase, type Requests } from './requests.ts';
import { SlotLinks, type SlotList } from './slot-lists.ts';

/** Refusals that another model may spare the client. */
const reasons: ReadonlyMap<Refusal, FallbackReason> = new Map<Refusal, FallbackReason>([
  [Refusal.failed, FallbackReason.failed],
  [Refusal.noReplica, FallbackReason.noReplica],
  [Refusal.busy, FallbackReason.busy],
  [Refusal.queueFull, FallbackReason.queueFull],
  [Refusal.shed, FallbackReason.queueFull],
  [Refusal.queueWaitOver, FallbackReason.queueTimeout],
  [Refusal.tooLong, FallbackReason.context],
  [Refusal.refused, FallbackReason.refusal],
  [Refusal.unsure, FallbackReason.lowConfidence],
]);

const none: FallbackList = [];
/** No place of a list. */
const closed = 255;

export class Fallbacks {
  readonly #requests: Requests;
  readonly #sink: DecisionSink;
  /** Of each model. */
  #lists: readonly FallbackList[] = [];
  #contextLists: readonly FallbackList[] = [];
  #larger: readonly (FallbackList[number] | undefined)[] = [];
  /** Some model has a fallback or a larger one, or had one; else nothing here is ever written. */
  #isUsed = false;
  /** The model each request came for, its lists, which are those there were when it came, and its next place in either. */
  readonly #asked: Int32Array;
  readonly #list: FallbackList[];
  readonly #contextList: FallbackList[];
  /** Where its reply may send it, once. */
  readonly #largerOf: (FallbackList[number] | undefined)[];
  readonly #next: Uint8Array;
  readonly #nextContext: Uint8Array;
  readonly #moving: SlotList;

  constructor({ models, slots }: BrainConfig, requests: Requests, sink: DecisionSink) {
    this.#requests = requests;
    this.#sink = sink;
    this.#asked = new Int32Array(slots);
    this.#list = Array.from({ length: slots }, () => none);
    this.#contextList = Array.from({ length: slots }, () => none);
    this.#largerOf = Array.from({ length: slots }, () => undefined);
    this.#next = new Uint8Array(slots);
    this.#nextContext = new Uint8Array(slots);
    this.#moving = new SlotLinks(slots).createList();
    this.setLists(models);
  }

  /** For requests that come from here on. */
  setLists(
    models: readonly Pick<ModelRules, 'fallbacks' | 'contextFallbacks' | 'cascade'>[],
  ): void {
    this.#lists = models.map(({ fallbacks = none }) => fallbacks);
    this.#contextLists = models.map(({ contextFallbacks = none }) => contextFallbacks);
    this.#larger = models.map(({ cascade }) => cascade);
    const lists = [...this.#lists, ...this.#contextLists];
    this.#isUsed ||=
      lists.some(({ length }) => length > 0) || this.#larger.some((to) => to !== undefined);
  }

  /** Who goes on to another model; below 0 when nobody does. */
  get first(): number {
    return this.#moving.head;
  }

  /** When somebody goes on: at once, or never. */
  get nextUs(): number {
    return this.#moving.length > 0 ? 0 : Number.POSITIVE_INFINITY;
  }

  /** A request that has the lists of the model asked for, from which an earlier brain may have sent it on. */
  open({ slot, askedModel: asked, model, adapter, pin }: Arrival): void {
    this.#asked[slot] = asked; // also while it is of no use: a reload may change that
    if (!this.#isUsed) return;
    const list = this.#lists[asked] ?? none;
    const contextList = this.#contextLists[asked] ?? none;
    this.#list[slot] = list;
    this.#contextList[slot] = contextList;
    this.#largerOf[slot] = asked === model ? this.#larger[asked] : undefined;
    const isMoved = asked !== model;
    this.#next[slot] = isMoved ? placeBehind(list, model, adapter) : 0;
    this.#nextContext[slot] = isMoved ? placeBehind(contextList, model, adapter) : 0;
    // What only one replica can serve has nowhere to go.
    if (pin !== NONE) this.#next[slot] = this.#nextContext[slot] = closed;
    this.#tell(slot);
  }

  /** The request goes on nowhere from here on. */
  close(slot: number): void {
    if (!this.#isUsed) return;
    this.#next[slot] = this.#nextContext[slot] = closed;
    this.#tell(slot);
  }

  /** Sends a request on that would be refused. False: there is nobody left for it. */
  take(slot: number, refusal: Refusal): boolean {
    if (!this.#isUsed) return false;
    const reason = reasons.get(refusal);
    if (reason === undefined) return false;
    const to = this.#onward(slot, reason);
    if (to === undefined) return false;
    const requests = this.#requests;
    const from = requests.model[slot] as number;
    this.#largerOf[slot] = undefined;
    requests.moveTo(slot, to);
    requests.phase[slot] = Phase.moving;
    this.#moving.push(slot);
    this.#sink.fellBack(slot, from, to, reason);
    this.#tell(slot);
    return true;
  }

  /**
   * What is told to a client for whom nobody is left: that a prompt is too long only if it is so for the model
   * whose lists it has; else that nobody could serve it.
   */
  lastWord(slot: number, refusal: Refusal): Refusal {
    if (!this.#isUsed || refusal !== Refusal.tooLong || this.#isAsLarge(slot)) return refusal;
    return Refusal.noReplica;
  }

  /** It is with the model whose lists it has, or one of those for prompts that are too long for that one. */
  #isAsLarge(slot: number): boolean {
    const model = this.#requests.model[slot] as number;
    const adapter = this.#requests.adapter[slot] as number;
    if (model === this.#asked[slot]) return true;
    return placeBehind(this.#contextList[slot] as FallbackList, model, adapter) > 0;
  }

  /**
   * Whoever gets an answer of its model is told what it may come to: a reload reaches them sooner or later than
   * it does the scheduler, and a request has the lists of its arrival.
   */
  #tell(slot: number): void {
    const isOpen = this.#next[slot] !== closed;
    const isLonger = !this.#isAsLarge(slot) || this.#nextOf(slot, true) !== undefined;
    const larger = isOpen && this.#largerOf[slot] !== undefined ? GoOn.larger : 0;
    this.#sink.mayGoOn(slot, larger | (isOpen && isLonger ? GoOn.longer : 0));
  }

  #onward(slot: number, reason: FallbackReason): FallbackList[number] | undefined {
    switch (reason) {
      case FallbackReason.refusal:
      case FallbackReason.lowConfidence:
        return this.#takeLarger(slot);
      case FallbackReason.context: {
        const isAsLarge = this.#isAsLarge(slot);
        return this.#takeNext(slot, true) ?? (isAsLarge ? undefined : this.#takeNext(slot, false));
      }
      default:
        return this.#takeNext(slot, false);
    }
  }

  /** Goes to the next place of the list. */
  #takeNext(slot: number, isContext: boolean): FallbackList[number] | undefined {
    const to = this.#nextOf(slot, isContext);
    const places = isContext ? this.#nextContext : this.#next;
    if (to !== undefined) places[slot] = (places[slot] as number) + 1;
    return to;
  }

  /** Who is at the next place of the list that the request has not come to by the other one. */
  #nextOf(slot: number, isContext: boolean): FallbackList[number] | undefined {
    const list = (isContext ? this.#contextList : this.#list)[slot] as FallbackList;
    const places = isContext ? this.#nextContext : this.#next;
    const { model, adapter } = this.#requests;
    let to = list[places[slot] as number];
    while (to !== undefined && to.model === model[slot] && to.adapter === adapter[slot]) {
      places[slot] = (places[slot] as number) + 1;
      to = list[places[slot] as number];
    }
    return to;
  }

  /** The larger model of the one it came for, whose lists it has from here on. */
  #takeLarger(slot: number): FallbackList[number] | undefined {
    const to = this.#next[slot] === closed ? undefined : this.#largerOf[slot];
    if (to === undefined) return undefined;
    this.#asked[slot] = to.model;
    this.#list[slot] = this.#lists[to.model] ?? none;
    this.#contextList[slot] = this.#contextLists[to.model] ?? none;
    this.#next[slot] = this.#nextContext[slot] = 0;
    return to;
  }

  /** It arrives, or leaves on the way, which is no wait. */
  leave(slot: number): number {
    this.#moving.remove(slot);
    this.#requests.phase[slot] = Phase.idle;
    return 0;
  }

  assertExact(): void {
    if (this.#isUsed) this.#requests.assertPhase(Phase.moving, this.#moving.length);
  }
}

/** The place behind the model in the list; the first where it is not in it. */
const placeBehind = (list: FallbackList, model: number, adapter: number): number =>
  1 + list.findIndex((to) => to.model === model && to.adapter === adapter);
