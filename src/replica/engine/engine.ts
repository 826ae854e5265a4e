/**
 * One LLM engine with continuous batching, chunked prefill and a prefix cache, step by step. Pure:
 * integer microseconds come in and go out; no clock, no randomness. The step order is vLLM V1's.
 *
 *   decodes grow, the newest make room · the unfinished prefill goes on · waiting requests enter
 *   first come first served · the step runs · every decode has a token more
 *
 * A step costs O(1) besides admissions, since all decodes move together: tokens, memory and ends are
 * differences to the number of steps. A request's whole prompt is reserved when it is admitted, so
 * only decodes are preempted. Invariant: at most one prefill is left unfinished by a step.
 */
import { assert } from '../../lib/assert.ts';
import { Bag } from '../../lib/bag.ts';
import { type EngineModel, type StepLoad, stepMs } from './engine-model.ts';
import { KvCache } from './kv-cache.ts';
import { Sequence, SequenceList } from './sequence.ts';

/** Times are when the client has the token: the end of the step and the API overhead. */
export interface EngineSink {
  /** The step that ended the prefill; once a request, preempted or not. */
  firstToken(id: number, us: number): void;
  finished(id: number, us: number): void;
  /** Every step that decoded: the inter-token latency of so many sequences. */
  step?(durationUs: number, decodes: number): void;
}

/** Buckets of finish steps; long answers pass theirs a few times before they end in it. */
const FINISH_BUCKETS = 1024;

export class Engine {
  /** 1 is normal; 3 makes every step that starts from here on three times as long. */
  slowness = 1;
  /** Totals; clear() keeps them. */
  promptTokensTotal = 0;
  hitTokensTotal = 0;
  preemptions = 0;
  busyUs = 0;
  readonly #model: EngineModel;
  readonly #blockTokens: number;
  readonly #pagesPerBlock: number;
  readonly #sink: EngineSink;
  readonly #cache: KvCache;
  readonly #byId = new Map<number, Sequence>();
  readonly #waiting = new SequenceList();
  /** Oldest admission first; what takes part in every step. */
  readonly #decodes = new SequenceList();
  /** The prefills of the running step. */
  #prefills: Sequence[] = [];
  #cancelled: Sequence[] = [];
  readonly #finishing = Array.from({ length: FINISH_BUCKETS }, () => new Bag<Sequence>());
  /** Decodes by the step, modulo the page size, at whose start their last page is full. */
  readonly #growing: Int32Array;
  readonly #load: StepLoad = {
    decodes: 0,
    residentTokens: 0,
    prefillTokens: 0,
    chunks: 0,
    attendedTokens: 0,
  };
  #nextUs = Number.POSITIVE_INFINITY;
  #stepUs = 0;
  /** Steps that are complete. */
  #steps = 0;
  #running = 0;
  /** KV tokens of all decodes. */
  #residentTokens = 0;
  /** The oldest waiting request did not fit, and no memory was given up since. */
  #headBlocked = false;
  readonly #finishDue = (sequence: Sequence): void => {
    if (sequence.finishStep === this.#steps) this.#finish(sequence);
  };

  /** `blockTokens`: tokens of one block of a prompt, in whole pages of the model. */
  constructor(model: EngineModel, blockTokens: number, sink: EngineSink) {
    assert(blockTokens > 0 && blockTokens % model.pageTokens === 0, 'a block is whole pages');
    assert(model.maxNumSeqs < model.stepTokensMax, 'decodes leave room for a prefill');
    this.#model = model;
    this.#blockTokens = blockTokens;
    this.#pagesPerBlock = blockTokens / model.pageTokens;
    this.#sink = sink;
    this.#cache = new KvCache(model.kvPages, this.#pagesPerBlock);
    this.#growing = new Int32Array(model.pageTokens);
  }

  /** End of the running step; Infinity when idle. */
  get nextUs(): number {
    return this.#nextUs;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Share of the KV memory that running requests hold, 0 to 1. */
  get kvUsage(): number {
    return this.#cache.usage;
  }

  /** Whether a request of this size can run at all; another must not be submitted. */
  fits(promptTokens: number, outputTokens: number): boolean {
    return this.#pages(promptTokens + outputTokens - 1) <= this.#model.kvPages;
  }

  /**
   * `blocks`: ids of the prompt's full blocks in order, non-negative; equal ids mean equal content
   * from the start of the prompt. The caller leaves the array alone from here on.
   */
  submit(
    id: number,
    promptTokens: number,
    outputTokens: number,
    blocks: Int32Array,
    nowUs: number,
  ): void {
    assert(promptTokens >= 1 && outputTokens >= 1, 'a request has a prompt and an answer');
    assert(blocks.length * this.#blockTokens <= promptTokens, 'blocks are full');
    assert(this.fits(promptTokens, outputTokens), 'the request fits into the KV memory alone');
    assert(!this.#byId.has(id), 'an id is in the engine once');
    assert(nowUs <= this.#nextUs, 'the step that ended before was completed');
    const sequence = new Sequence(id, promptTokens, outputTokens, blocks);
    this.#byId.set(id, sequence);
    this.#waiting.addNewest(sequence);
    if (this.#nextUs === Number.POSITIVE_INFINITY) this.#startStep(nowUs);
  }

  /** The client left: waiting ends at once, running at the end of the running step. */
  cancel(id: number, nowUs: number): void {
    assert(nowUs <= this.#nextUs, 'the step that ended before was completed');
    const sequence = this.#byId.get(id);
    if (sequence === undefined || sequence.cancelled) return;
    sequence.cancelled = true;
    if (sequence.state === 'waiting') this.#leave(sequence);
    else this.#cancelled.push(sequence);
  }

  /** Completes the step that ends at nextUs and starts the next one. */
  advance(): void {
    const endUs = this.#nextUs;
    assert(endUs !== Number.POSITIVE_INFINITY, 'a step is running');
    this.#completeStep();
    this.#startStep(endUs);
  }

  /** Prefix hit of a request that was admitted, until its finished() has returned. */
  cachedTokens(id: number): number {
    return this.#byId.get(id)?.cachedTokens ?? 0;
  }

  /** Tokens that a request has so far, until its finished() has returned. */
  producedTokens(id: number): number {
    return this.#byId.get(id)?.producedTokens(this.#steps) ?? 0;
  }

  /** A crash: forgets requests and cache. */
  clear(): void {
    for (const sequence of this.#byId.values()) {
      sequence.list?.remove(sequence);
      this.#bucketOf(sequence).remove(sequence);
    }
    this.#byId.clear();
    this.#prefills = [];
    this.#cancelled = [];
    this.#growing.fill(0);
    this.#cache.clear();
    this.#running = 0;
    this.#residentTokens = 0;
    this.#headBlocked = false;
    this.#nextUs = Number.POSITIVE_INFINITY;
  }

  #completeStep(): void {
    const decodes = this.#decodes.length;
    this.busyUs += this.#stepUs;
    this.#steps++;
    this.#residentTokens += decodes;
    if (decodes > 0) this.#sink.step?.(this.#stepUs, decodes);
    // By index: whoever hears of a token may cancel, which adds to the list for the next step.
    const gone = this.#cancelled.length;
    for (let i = 0; i < gone; i++) {
      const sequence = this.#cancelled[i] as Sequence;
      if (sequence.state !== 'left') this.#leave(sequence);
    }
    this.#cancelled.splice(0, gone);
    this.#finishing[this.#steps % FINISH_BUCKETS]?.visitAll(this.#finishDue);
    let unfinished = 0;
    for (const sequence of this.#prefills) {
      if (sequence.state !== 'prefill') continue;
      if (sequence.computedTokens === sequence.prefillTokens) this.#endPrefill(sequence);
      else this.#prefills[unfinished++] = sequence;
    }
    assert(unfinished <= 1, 'at most one prefill is left unfinished by a step');
    this.#prefills.length = unfinished;
  }

  #startStep(nowUs: number): void {
    const load = this.#load;
    this.#growDecodes();
    const decodes = this.#decodes.length;
    load.decodes = decodes;
    load.residentTokens = this.#residentTokens;
    load.prefillTokens = 0;
    load.chunks = 0;
    load.attendedTokens = 0;
    let budget = this.#model.stepTokensMax - decodes;
    const unfinished = this.#prefills[0];
    if (unfinished !== undefined) budget -= this.#addChunk(unfinished, budget);
    // Whoever was preempted is the oldest and still does not fit, so a preemption lets nobody in.
    while (budget > 0) {
      const next = this.#admit();
      if (next === undefined) break;
      this.#prefills.push(next);
      budget -= this.#addChunk(next, budget);
    }
    if (decodes + load.chunks === 0) {
      assert(this.#waiting.length === 0, 'an idle engine admits the oldest request');
      this.#nextUs = Number.POSITIVE_INFINITY;
      return;
    }
    const us = stepMs(this.#model, load) * 1000 * this.slowness;
    this.#stepUs = Math.max(1, Math.round(us));
    this.#nextUs = nowUs + this.#stepUs;
  }

  /** Takes the pages of this step's tokens; preempts the newest decodes until they fit. */
  #growDecodes(): void {
    const phase = this.#steps % this.#model.pageTokens;
    while (!this.#cache.canGrow(this.#growing[phase] as number)) {
      const newest = this.#decodes.newest;
      assert(newest !== undefined, 'only decodes grow');
      this.#preempt(newest);
    }
    this.#cache.grow(this.#growing[phase] as number);
  }

  #preempt(sequence: Sequence): void {
    const produced = sequence.producedTokens(this.#steps);
    this.#release(sequence);
    sequence.state = 'waiting';
    sequence.producedBefore = produced;
    sequence.computedTokens = 0;
    this.#waiting.addOldest(sequence);
    this.preemptions++;
  }

  /** Admits the oldest waiting request, if there is one and it fits. */
  #admit(): Sequence | undefined {
    const sequence = this.#waiting.oldest;
    if (sequence === undefined || this.#headBlocked) return undefined;
    if (this.#running >= this.#model.maxNumSeqs) return undefined;
    const { blocks, prefillTokens } = sequence;
    const privatePages = this.#privatePages(sequence, prefillTokens);
    if (!this.#cache.fits(blocks, privatePages)) {
      this.#headBlocked = true;
      return undefined;
    }
    this.#waiting.remove(sequence);
    this.#running++;
    sequence.state = 'prefill';
    const hitTokens = this.#cache.hold(blocks, privatePages) * this.#blockTokens;
    // The last token is computed in any case: it is what the first output token comes from.
    sequence.computedTokens = Math.min(hitTokens, prefillTokens - 1);
    if (sequence.admitted) return sequence;
    sequence.admitted = true;
    sequence.cachedTokens = sequence.computedTokens;
    this.promptTokensTotal += sequence.promptTokens;
    this.hitTokensTotal += sequence.cachedTokens;
    return sequence;
  }

  #addChunk(sequence: Sequence, budget: number): number {
    const offset = sequence.computedTokens;
    const tokens = Math.min(budget, sequence.prefillTokens - offset);
    sequence.computedTokens += tokens;
    this.#load.prefillTokens += tokens;
    this.#load.chunks++;
    this.#load.attendedTokens += tokens * (offset + tokens / 2);
    return tokens;
  }

  /** The step that computed the last prompt token made an output token as well. */
  #endPrefill(sequence: Sequence): void {
    const produced = sequence.producedBefore + 1;
    if (produced === 1) this.#sink.firstToken(sequence.id, this.#heardUs());
    if (produced === sequence.outputTokens) {
      this.#finish(sequence);
      return;
    }
    sequence.state = 'decode';
    sequence.decodesSince = this.#steps;
    sequence.finishStep = this.#steps + sequence.outputTokens - produced;
    this.#residentTokens += sequence.prefillTokens;
    this.#countGrowing(sequence, 1);
    this.#decodes.addNewest(sequence);
    this.#bucketOf(sequence).add(sequence);
  }

  #finish(sequence: Sequence): void {
    // Cancelled by whoever heard of another token of this step.
    if (!sequence.cancelled) this.#sink.finished(sequence.id, this.#heardUs());
    this.#leave(sequence);
  }

  #leave(sequence: Sequence): void {
    if (sequence.state === 'waiting') {
      this.#waiting.remove(sequence);
      this.#headBlocked = false;
    } else {
      this.#release(sequence);
    }
    sequence.state = 'left';
    this.#byId.delete(sequence.id);
  }

  /** A running sequence gives up its memory and its place in the batch. */
  #release(sequence: Sequence): void {
    const kvTokens = sequence.kvTokens(this.#steps);
    const privatePages = this.#privatePages(sequence, kvTokens);
    const computed = Math.floor(sequence.computedTokens / this.#blockTokens);
    this.#cache.release(sequence.blocks, computed, privatePages);
    this.#running--;
    this.#headBlocked = false;
    if (sequence.state !== 'decode') return;
    this.#residentTokens -= kvTokens;
    this.#countGrowing(sequence, -1);
    this.#decodes.remove(sequence);
    this.#bucketOf(sequence).remove(sequence);
  }

  /** When a client has what the step that is being completed made. */
  #heardUs(): number {
    return this.#nextUs + this.#model.overheadUs;
  }

  /** Its pages are full, and it needs one more, at the start of every pageTokens-th step. */
  #countGrowing(sequence: Sequence, change: 1 | -1): void {
    const { pageTokens } = this.#model;
    const phase = (sequence.decodesSince - sequence.prefillTokens) % pageTokens;
    const index = phase < 0 ? phase + pageTokens : phase;
    this.#growing[index] = (this.#growing[index] as number) + change;
  }

  #bucketOf(sequence: Sequence): Bag<Sequence> {
    return this.#finishing[sequence.finishStep % FINISH_BUCKETS] as Bag<Sequence>;
  }

  #pages(tokens: number): number {
    return Math.ceil(tokens / this.#model.pageTokens);
  }

  #privatePages(sequence: Sequence, tokens: number): number {
    return this.#pages(tokens) - sequence.blocks.length * this.#pagesPerBlock;
  }
}
