/**
 * Take-over: what a forwarder does with the attempts of a predecessor that died. Forwarder threads, once,
 * before the first dispatch; over the table of a gateway that has just started there is nothing to do.
 *
 * The rings need no repair (spsc-ring.ts, byte-ring.ts): the successor goes on at their positions, behind
 * everything that was published. What was not, the slot rows tell: `taken` names the attempt that left
 * the dispatch ring, `told` the end of which the scheduler knows, `complete` the answer that is all there
 * if the response ring has reached `completeAt`.
 *
 *   dispatched        nothing has reached the client: the request goes back to the scheduler
 *   streaming         it ends behind what is in the ring: well when that is all, else with an error
 *   settled           the same record; behind one that the predecessor published it is late
 *   any other         the scheduler is told of the end
 */
import { errors } from '../errors/catalogue.ts';
import type { Usage } from '../protocol/completion-observer.ts';
import { HedgeFlag, SlotState } from '../shm/request-slots.layout.ts';
import { leaseOf, stateOf } from '../shm/request-slots.ts';
import { Outcome } from '../shm/rings.layout.ts';
import { Notice, Output, type OutputOwner } from './output.ts';
import type { Services } from './services.ts';

/** `forwarder` is the index of this thread and of its predecessor. */
export function takeOver(services: Services, forwarder: number): void {
  const { words, at, count } = services.slots;
  for (let slot = 0; slot < count; slot++) {
    const row = services.slots.row(slot);
    const lease = words[row + at.taken] as number;
    // A row that names another forwarder: the scheduler has dispatched it since, so it knows of the end.
    const isOpen = lease !== 0 && words[row + at.told] !== lease;
    if (isOpen && words[row + at.forwarder] === forwarder) end(services, slot, lease);
  }
}

function end(services: Services, slot: number, lease: number): void {
  const { slots } = services;
  const { words, at } = slots;
  const row = slots.row(slot);
  const stamp = slots.stamp(slot);
  const isCurrent = leaseOf(stamp) === lease;
  switch (isCurrent ? stateOf(stamp) : SlotState.free) {
    case SlotState.dispatched: {
      const error = errors.FORWARDER_LOST.number;
      words[row + at.error] = error;
      slots.transition(slot, lease, SlotState.dispatched, SlotState.resuming);
      tell(services, slot, lease, error);
      return;
    }
    case SlotState.streaming:
    case SlotState.settled: {
      const writer = services.writers[words[row + at.acceptor] as number];
      if (writer === undefined) return;
      const isWhole =
        words[row + at.complete] === lease &&
        writer.hasReached(words[row + at.completeAt] as number);
      writer.enqueue(new Ending(services, slot, lease, row, isWhole).output);
      return;
    }
    case SlotState.resuming:
      tell(services, slot, lease, words[row + at.error] as number, usageOf(services, slot));
      return;
    default:
      tell(services, slot, lease, 0);
  }
}

/**
 * The replica is not judged by an attempt whose end nobody saw; what the predecessor knew that it used is in the
 * row (`usage`).
 */
function tell(
  { events, slots }: Services,
  slot: number,
  lease: number,
  error: number,
  usage?: Usage,
): void {
  const flags = slots.words[slots.row(slot) + slots.at.hedgeFlags] as number;
  // Of two exchanges that were undecided the first speaks for both: the other is the one it left behind.
  const isHedge = (flags & HedgeFlag.alone) !== 0;
  events.released({ slot, lease, isHedge }, Outcome.lost, error, 0, usage);
}

/** Of the current attempt; behind a continued answer the row has the sum of those before it too. */
function usageOf({ slots }: Services, slot: number): Usage | undefined {
  if (slots.isContinued(slot)) return undefined;
  const { words, at } = slots;
  const row = slots.row(slot);
  return {
    prompt: words[row + at.promptTokens] as number,
    completion: words[row + at.completionTokens] as number,
    cached: words[row + at.cachedTokens] as number,
  };
}

/** The end of an answer that another thread began. */
class Ending implements OutputOwner {
  readonly output: Output;
  readonly #services: Services;
  readonly #usage: Usage | undefined;

  constructor(services: Services, slot: number, lease: number, row: number, isWhole: boolean) {
    const { words, at } = services.slots;
    this.#services = services;
    this.#usage = usageOf(services, slot);
    this.output = new Output(this, slot, lease, row, words[row + at.producedBytes] as number);
    this.output.notice = Notice.end;
    if (!isWhole) this.output.error = errors.FORWARDER_LOST.number;
  }

  claimSettlement(): boolean {
    const { slots } = this.#services;
    const { slot, lease, row, error } = this.output;
    // The predecessor has settled it, and may have died before it could say so.
    if (!slots.transition(slot, lease, SlotState.streaming, SlotState.settled)) return true;
    if (error !== 0) slots.words[row + slots.at.error] = error;
    return true;
  }

  settled(): void {
    const { slot, lease, error } = this.output;
    tell(this.#services, slot, lease, error, this.#usage);
  }

  completes(): void {}

  handedOver(): void {}

  written(): void {}
}
