/**
 * One request inside the engine model, and the lists it waits and decodes in. Pure.
 *
 * Invariant: a sequence is in at most one SequenceList at a time; the links are in the sequence, so
 * entering at either end and leaving from anywhere are a few stores.
 */
import { assert } from '../../lib/assert.ts';
import type { Bagged } from '../../lib/bag.ts';

export type SequenceState = 'waiting' | 'prefill' | 'decode' | 'left';

export class Sequence implements Bagged {
  readonly id: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly blocks: Int32Array;
  state: SequenceState = 'waiting';
  cancelled = false;
  /** Output tokens when this prefill began; more than 0 after a preemption. */
  producedBefore = 0;
  /** Tokens of this prefill that have KV once the running step is complete. */
  computedTokens = 0;
  /** Steps that were complete when it began to decode, and when its last token is out. */
  decodesSince = 0;
  finishStep = 0;
  /** Prefix hit of the first admission. */
  cachedTokens = 0;
  admitted = false;
  /** Index in the bag of its finish step. */
  place = -1;
  list: SequenceList | undefined = undefined;
  older: Sequence | undefined = undefined;
  newer: Sequence | undefined = undefined;

  constructor(id: number, promptTokens: number, outputTokens: number, blocks: Int32Array) {
    this.id = id;
    this.promptTokens = promptTokens;
    this.outputTokens = outputTokens;
    this.blocks = blocks;
  }

  /** Tokens a prefill computes: after a preemption the answer so far is part of the prompt. */
  get prefillTokens(): number {
    return this.promptTokens + this.producedBefore;
  }

  /** Tokens whose KV it keeps once `steps` steps are complete. */
  kvTokens(steps: number): number {
    if (this.state !== 'decode') return this.prefillTokens;
    return this.prefillTokens + steps - this.decodesSince;
  }

  producedTokens(steps: number): number {
    if (this.state !== 'decode') return this.producedBefore;
    return this.producedBefore + 1 + steps - this.decodesSince;
  }
}

export class SequenceList {
  oldest: Sequence | undefined;
  newest: Sequence | undefined;
  length = 0;

  addNewest(sequence: Sequence): void {
    this.#take(sequence);
    sequence.older = this.newest;
    if (this.newest === undefined) this.oldest = sequence;
    else this.newest.newer = sequence;
    this.newest = sequence;
  }

  addOldest(sequence: Sequence): void {
    this.#take(sequence);
    sequence.newer = this.oldest;
    if (this.oldest === undefined) this.newest = sequence;
    else this.oldest.older = sequence;
    this.oldest = sequence;
  }

  remove(sequence: Sequence): void {
    assert(sequence.list === this, 'the sequence is in this list');
    const { older, newer } = sequence;
    if (older === undefined) this.oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.newest = older;
    else newer.older = older;
    sequence.list = undefined;
    sequence.older = undefined;
    sequence.newer = undefined;
    this.length--;
  }

  #take(sequence: Sequence): void {
    assert(sequence.list === undefined, 'a sequence is in one list');
    sequence.list = this;
    this.length++;
  }
}
