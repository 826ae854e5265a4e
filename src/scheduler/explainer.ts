/**
 * Explainer: writes down what each choice was made from (shm/explain.ts).
 *
 * Scheduler thread; never blocks, never allocates. The stamp of the record goes into the slot before the
 * attempt is published, so the acceptor of the answer finds it.
 */
import { type Choice, filterNames } from '../dispatch/choice.ts';
import { assert } from '../lib/assert.ts';
import { explainCandidatesMax, explainFilters, explainRecords } from '../shm/explain.layout.ts';
import { ExplainWriter } from '../shm/explain.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import type { ReplicaRows } from './replica-rows.ts';

const int32Max = 2 ** 31 - 1;

export class Explainer {
  readonly #writer: ExplainWriter;
  readonly #slots: RequestSlots;
  readonly #replicas: ReplicaRows;

  constructor(region: SharedArrayBuffer, slots: RequestSlots, replicas: ReplicaRows) {
    assert(filterNames.length === explainFilters, 'a record has a word for each reason');
    this.#writer = new ExplainWriter(region, explainRecords);
    this.#slots = slots;
    this.#replicas = replicas;
  }

  placed(slot: number, attempt: number, heldUs: number, choice: Choice): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const record = this.#writer.begin();
    if (record < 0) {
      words[row + at.explain] = 0;
      return;
    }
    this.#writeRequest(record, row, choice);
    this.#writeCandidates(record, choice);
    const target = this.#writer.words;
    target[record + this.#writer.at.attempt] = attempt;
    target[record + this.#writer.at.heldUs] = Math.min(heldUs, int32Max);
    words[row + at.explain] = this.#writer.commit();
  }

  #writeRequest(record: number, row: number, choice: Choice): void {
    const { words, at } = this.#writer;
    const { words: slots, at: slotAt } = this.#slots;
    const { candidates, request, filtered } = choice;
    words[record + at.idHash] = slots[row + slotAt.idHash] as number;
    words[record + at.idHash + 1] = slots[row + slotAt.idHash + 1] as number;
    words[record + at.model] = slots[row + slotAt.model] as number;
    words[record + at.replica] = candidates.row[choice.index] as number;
    words[record + at.tableVersion] = this.#replicas.version;
    words[record + at.promptTokens] = request.promptTokens;
    words[record + at.outputTokens] = Math.round(request.outputTokens);
    words[record + at.bySession] = choice.isBySession ? 1 : 0;
    words[record + at.members] = choice.members;
    words[record + at.candidates] = candidates.length;
    for (let i = 0; i < explainFilters; i++) {
      words[record + at.filtered + i] = filtered[i] as number;
    }
  }

  #writeCandidates(record: number, choice: Choice): void {
    const { candidates, index } = choice;
    const length = Math.min(candidates.length, explainCandidatesMax);
    for (let i = 0; i < length; i++) this.#writeCandidate(record, i, i, choice);
    if (index >= length) this.#writeCandidate(record, length - 1, index, choice);
  }

  #writeCandidate(record: number, i: number, index: number, choice: Choice): void {
    const { words, at } = this.#writer;
    const { row, inFlight, pendingTokens, contextTokens } = choice.candidates;
    words[record + at.row + i] = row[index] as number;
    words[record + at.inFlight + i] = inFlight[index] as number;
    words[record + at.pendingTokens + i] = Math.min(pendingTokens[index] as number, int32Max);
    words[record + at.contextTokens + i] = Math.min(contextTokens[index] as number, int32Max);
    words[record + at.matchedTokens + i] = choice.isMatched
      ? (choice.request.matched[index] as number)
      : 0;
  }
}
