/**
 * Batching: who waits for a batch, when it is sent, and who goes with it. Pure; nothing is allocated
 * per request.
 *
 * Requests wait only while a replica that takes batches has room that nobody in the queue could use
 * (passing.ts), so a window is all that batching can cost. The first member is placed as any request,
 * among those replicas; the rest follow it while that replica has room. Who does not fit, and a batch
 * of one, goes the ordinary way.
 */
import type { Arrival } from './arrival.ts';
import { Batches, type BatchTerms } from './batches.ts';
import { type Candidates, NONE } from './candidates.ts';
import type { DecisionSink } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import type { Passing } from './passing.ts';
import { Phase, type Requests } from './requests.ts';

export interface BatchingParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
  readonly passing: Passing;
}

/** How a member goes on. */
export interface Sender {
  /** With its batch, to one of the candidates. False: none of them has room for it. */
  dispatch(slot: number, candidates: Candidates): boolean;
  /** By itself. */
  alone(slot: number): void;
}

export class Batching {
  readonly #batches: Batches;
  readonly #parts: BatchingParts;
  readonly #sink: DecisionSink;
  readonly #sender: Sender;
  /** Of the batch that is about to open. */
  readonly #terms = { windowUs: 0, itemsMax: 0, bytesMax: 0 };
  /** Where the batch that is being sent goes. */
  #row = NONE;
  readonly #isOther = (row: number): boolean => row !== this.#row;
  #nowUs = 0;
  readonly #takesNone = (row: number): boolean =>
    this.#parts.fleet.batching(row, this.#nowUs) === undefined;

  constructor(slots: number, parts: BatchingParts, sink: DecisionSink, sender: Sender) {
    this.#batches = new Batches(slots, parts.requests);
    this.#parts = parts;
    this.#sink = sink;
    this.#sender = sender;
  }

  /** When the first window is over; Infinity when nobody waits. */
  get nextUs(): number {
    return this.#batches.waiters === 0 ? Number.POSITIVE_INFINITY : this.#batches.nextUs;
  }

  /** Somebody who waits for a batch; NONE when nobody does. */
  get first(): number {
    return this.#batches.first;
  }

  /** Lets a request that was just opened wait for others like it. False: it does not. */
  gather(arrival: Arrival, nowUs: number): boolean {
    const { slot, model, batch0, batch1, promptBytes, deadlineUs, hedgeUs } = arrival;
    // Two replicas are not to race for a batch of which one member wants it.
    if ((batch0 === 0 && batch1 === 0) || hedgeUs >= 0) return false;
    this.#nowUs = nowUs;
    const batches = this.#batches;
    let batch = batches.find(arrival);
    // A thread that was late must not let anybody join what should have been sent.
    if (batch !== NONE && (batches.endUs(batch) <= nowUs || !batches.fits(batch, promptBytes))) {
      this.#send(batch, model, nowUs);
      batch = NONE;
    }
    // Who would queue behind others is not to lose a window as well.
    const isAsked = batch === NONE || this.#parts.lanes.depth(model) > 0;
    if (isAsked && !this.#readTerms(arrival)) return false;
    if (batch === NONE) {
      const terms = this.#terms;
      if (promptBytes > terms.bytesMax) return false;
      if (deadlineUs <= nowUs + terms.windowUs) return false;
      batch = batches.open(arrival, terms, nowUs);
      if (batch === NONE) return false;
    } else if (deadlineUs <= batches.endUs(batch)) return false;
    batches.join(batch, slot);
    if (batches.isFull(batch)) this.#send(batch, model, nowUs);
    return true;
  }

  /** The wait of a member ends, however. Returns its length. */
  leave(slot: number, nowUs: number): number {
    return this.#batches.leave(slot, nowUs);
  }

  /** Sends the batches whose window is over. */
  expire(nowUs: number): void {
    if (this.#batches.waiters === 0) return;
    for (let batch = this.#batches.due(nowUs); batch !== NONE; batch = this.#batches.due(nowUs)) {
      const { model } = this.#parts.requests;
      this.#send(batch, model[this.#batches.members(batch).head] as number, nowUs);
    }
  }

  assertExact(): void {
    this.#batches.assertExact();
  }

  /** Takes the narrowest terms of the candidates that could have it in a batch. False: there is none. */
  #readTerms(arrival: Arrival): boolean {
    const { passing } = this.#parts;
    const isAny = passing.holdForAll(arrival.model) && this.#readTermsOfRest(arrival);
    passing.end();
    return isAny;
  }

  #readTermsOfRest({ model, adapter }: Arrival): boolean {
    const { fleet, passing } = this.#parts;
    const { length, row: rows } = fleet.candidates(model);
    const terms = this.#terms;
    terms.windowUs = terms.itemsMax = terms.bytesMax = Number.POSITIVE_INFINITY;
    for (let i = 0; i < length; i++) {
      const row = rows[i] as number;
      const own = fleet.batching(row, this.#nowUs);
      if (own === undefined || passing.isHeld(row) || !fleet.hasAdapter(row, adapter)) continue;
      terms.windowUs = Math.min(terms.windowUs, own.windowUs);
      terms.itemsMax = Math.min(terms.itemsMax, own.itemsMax);
      terms.bytesMax = Math.min(terms.bytesMax, own.bytesMax);
    }
    return terms.windowUs !== Number.POSITIVE_INFINITY;
  }

  #send(batch: number, model: number, nowUs: number): void {
    const { passing } = this.#parts;
    const members = this.#batches.members(batch);
    // Who queues by now came before, or has waited longer: members take their turn among them.
    if (members.length > 1 && passing.holdForAll(model)) {
      this.#sink.batchBegins();
      this.#sendTogether(batch, model, nowUs);
      this.#sink.batchEnds();
    }
    passing.end();
    while (members.length > 0) this.#sender.alone(members.head);
  }

  #sendTogether(batch: number, model: number, nowUs: number): void {
    this.#nowUs = nowUs;
    const { fleet, requests } = this.#parts;
    const members = this.#batches.members(batch);
    let bytes = 0;
    let items = 0;
    let terms: BatchTerms | undefined;
    for (let slot = members.head; slot !== NONE; ) {
      const next = members.after(slot);
      const more = requests.promptBytes[slot] as number;
      const isLate = nowUs >= (requests.deadlineUs[slot] as number);
      const fits =
        terms === undefined || (items < terms.itemsMax && bytes + more <= terms.bytesMax);
      const allowed = fleet.candidatesWithout(model, items === 0 ? this.#takesNone : this.#isOther);
      if (allowed.length === 0) return;
      if (
        fits &&
        !isLate &&
        this.#sender.dispatch(slot, allowed) &&
        requests.phase[slot] === Phase.running
      ) {
        this.#row = requests.replica[slot] as number;
        terms = fleet.batching(this.#row, nowUs);
        items++;
        bytes += more;
      }
      slot = next;
    }
  }
}
