/**
 * Explainer: writes down what each choice was made from (shm/explain.ts).
 *
 * Scheduler thread; never blocks, never allocates. The stamp of the record goes into the slot before the
 * attempt is published, so the acceptor of the answer finds it.
 */
import { type Choice, filterNames } from '../dispatch/choice.ts';
import { assert } from '../lib/assert.ts';
import {
  Chooser,
  explainCandidatesMax,
  explainFilters,
  explainRecords,
} from '../shm/explain.layout.ts';
import { ExplainWriter } from '../shm/explain.ts';
import { replicaRows } from '../shm/replica-table.layout.ts';
import type { RequestSlots } from '../shm/request-slots.ts';

/** Tokens matched where nobody asked. */
const none = new Int32Array(replicaRows);

export class Explainer {
  readonly #writer: ExplainWriter;
  readonly #slots: RequestSlots;
  readonly #replicas: { readonly version: number };

  constructor(
    region: SharedArrayBuffer,
    slots: RequestSlots,
    replicas: { readonly version: number },
  ) {
    assert(filterNames.length === explainFilters, 'a record has a word for each reason');
    this.#writer = new ExplainWriter(region, explainRecords);
    this.#slots = slots;
    this.#replicas = replicas;
  }

  placed(slot: number, attempt: number, heldUs: number, choice: Choice): void {
    const { words, at } = this.#slots;
    words[this.#slots.row(slot) + at.explain] = this.#write(slot, attempt, 0, heldUs, choice);
  }

  /** A hedge goes to a replica; it has waited for none. */
  hedged(slot: number, attempt: number, choice: Choice): void {
    const { words, at } = this.#slots;
    words[this.#slots.row(slot) + at.hedgeExplain] = this.#write(slot, attempt, 1, 0, choice);
  }

  /** Returns the stamp of the record; 0 when there is none. */
  #write(slot: number, attempt: number, hedge: number, heldUs: number, choice: Choice): number {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const record = this.#writer.begin();
    if (record < 0) return 0;
    const { words: target, at: to } = this.#writer;
    target[record + to.idHash] = words[row + at.idHash] as number;
    target[record + to.idHash + 1] = words[row + at.idHash + 1] as number;
    target[record + to.model] = words[row + at.model] as number;
    target[record + to.attempt] = attempt;
    target[record + to.hedge] = hedge;
    target[record + to.heldUs] = heldUs;
    this.#writeChoice(record, choice);
    this.#writeCandidates(choice);
    return this.#writer.commit();
  }

  #writeChoice(record: number, choice: Choice): void {
    const { words, at } = this.#writer;
    const { candidates, request, filtered } = choice;
    words[record + at.replica] = candidates.row[choice.index] as number;
    words[record + at.tableVersion] = this.#replicas.version;
    words[record + at.promptTokens] = request.promptTokens;
    words[record + at.outputTokens] = Math.round(request.outputTokens);
    words[record + at.chosenBy] = chooserOf(choice);
    words[record + at.members] = choice.members;
    words[record + at.candidates] = candidates.length;
    for (let i = 0; i < explainFilters; i++) {
      words[record + at.filtered + i] = filtered[i] as number;
    }
  }

  /** The first ones that fit; the chosen one takes the last place when it is behind them. */
  #writeCandidates({ candidates, index, request, isMatched }: Choice): void {
    const { words, candidateAt: at, candidateWords } = this.#writer;
    const { row, inFlight, pendingTokens, contextTokens } = candidates;
    const matched = isMatched ? request.matched : none;
    const listed = Math.min(candidates.length, explainCandidatesMax);
    const first = this.#writer.firstCandidate;
    const rowAt = first + at.row;
    const inFlightAt = first + at.inFlight;
    const pendingAt = first + at.pendingTokens;
    const contextAt = first + at.contextTokens;
    const matchedAt = first + at.matchedTokens;
    for (let place = 0, to = 0; place < listed; place++, to += candidateWords) {
      const i = place === listed - 1 && index > place ? index : place;
      words[rowAt + to] = row[i] as number;
      words[inFlightAt + to] = inFlight[i] as number;
      words[pendingAt + to] = pendingTokens[i] as number;
      words[contextAt + to] = contextTokens[i] as number;
      words[matchedAt + to] = matched[i] as number;
    }
  }
}

function chooserOf({ isPinned, isBySession }: Choice): number {
  if (isPinned) return Chooser.pin;
  return isBySession ? Chooser.session : Chooser.policy;
}
