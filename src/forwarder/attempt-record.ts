/**
 * What an attempt leaves behind: its columns of the slot row and its metrics. Forwarder threads; the
 * forwarder owns both while the slot is dispatched or streaming. Of two exchanges both write, and the
 * one that is left writes its own once more.
 */
import { errors } from '../errors/catalogue.ts';
import type { Usage } from '../protocol/completion-observer.ts';
import type { Outcome } from '../shm/rings.layout.ts';
import type { ExchangeKind } from '../shm/span-records.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import {
  defaultMetricDims,
  modelIndex,
  type Result,
  Stage,
  TokenType,
} from '../telemetry/labels.ts';
import type { CounterMetric } from '../telemetry/metric-kinds.ts';
import type { AttemptTrace } from './attempt-trace.ts';
import type { Earlier } from './delivery.ts';
import type { Services } from './services.ts';

export class AttemptRecord {
  readonly #services: Services;
  readonly #slot: number;
  readonly #row: number;
  readonly #model: number;
  readonly #startUs: number;
  readonly #earlier: Earlier | undefined;
  /** Until its record is written. */
  #trace: AttemptTrace | undefined;
  /** When the last token came; of an attempt before this one while it has none. */
  lastTokenUs: number;
  #usage: Usage | undefined;
  #sentUs = 0;
  #firstByteUs = 0;
  #status = 0;
  #error = 0;

  constructor(
    services: Services,
    slot: number,
    startUs: number,
    produced: number,
    earlier?: Earlier,
    trace?: AttemptTrace,
  ) {
    const { slots } = services;
    const { words, at } = slots;
    const row = slots.row(slot);
    this.#services = services;
    this.#slot = slot;
    this.#row = row;
    this.#startUs = startUs;
    this.#earlier = earlier;
    this.#trace = trace;
    this.lastTokenUs = earlier?.lastTokenUs ?? 0;
    this.#model = modelIndex(words[row + at.model] as number, defaultMetricDims);
    words[row + at.producedBytes] = produced;
    if (earlier === undefined) slots.writeTime(slot, at.firstTokenUs, 0);
    slots.writeTime(slot, at.endedUs, 0);
    this.claim();
  }

  /** The row is of this exchange, whatever another one has written. */
  claim(): void {
    const { slots } = this.#services;
    const { words, at } = slots;
    const row = this.#row;
    words[row + at.status] = this.#status;
    words[row + at.error] = this.#error;
    slots.writeTime(this.#slot, at.sentUs, this.#sentUs);
    slots.writeTime(this.#slot, at.firstByteUs, this.#firstByteUs);
    if (this.#earlier !== undefined) return; // what the attempts before it used stays
    words[row + at.promptTokens] = this.#usage?.prompt ?? -1;
    words[row + at.completionTokens] = this.#usage?.completion ?? -1;
    words[row + at.cachedTokens] = this.#usage?.cached ?? -1;
  }

  /** Since it began. */
  ageUs(us: number): number {
    return us - this.#startUs;
  }

  sent(us: number): void {
    const { slots, metrics } = this.#services;
    // What goes before a second call, on a fresh connection or without an option, is the replica's time.
    if (this.#sentUs === 0) metrics.observe(catalogue.overhead, Stage.connect, us - this.#startUs);
    this.#sentUs = us;
    slots.writeTime(this.#slot, slots.at.sentUs, us);
  }

  head(us: number, status: number): void {
    const { slots } = this.#services;
    this.#firstByteUs = us;
    this.#status = status;
    slots.writeTime(this.#slot, slots.at.firstByteUs, us);
    slots.words[this.#row + slots.at.status] = status;
  }

  tokens(us: number, events: number): void {
    const { slots, metrics } = this.#services;
    if (this.lastTokenUs === 0) {
      const arrivedUs = slots.readTime(this.#slot, slots.at.arrivedUs);
      slots.writeTime(this.#slot, slots.at.firstTokenUs, us);
      metrics.observe(catalogue.timeToFirstToken, this.#model, us - arrivedUs);
    } else metrics.observe(catalogue.interTokenLatency, this.#model, us - this.lastTokenUs);
    for (let i = 1; i < events; i++) metrics.observe(catalogue.interTokenLatency, this.#model, 0);
    this.lastTokenUs = us;
  }

  /** An event was left out; the stream itself may still end well. */
  malformed(): void {
    const { slots, metrics } = this.#services;
    this.#error = errors.MALFORMED_EVENT.number;
    slots.words[this.#row + slots.at.error] = this.#error;
    metrics.add(catalogue.streamMalformedEvents, this.#model, 1);
  }

  /** What the replica has said that the attempt used, however it ended; the first call counts. */
  used(usage: Usage | undefined): void {
    if (usage === undefined || this.#usage !== undefined) return;
    this.#usage = { ...usage };
    const { words, at } = this.#services.slots;
    const before = this.#earlier?.usage;
    words[this.#row + at.promptTokens] = before?.prompt ?? usage.prompt;
    words[this.#row + at.completionTokens] = usage.completion + (before?.completion ?? 0);
    words[this.#row + at.cachedTokens] = before?.cached ?? usage.cached;
    this.#countTokens(TokenType.input, usage.prompt);
    this.#countTokens(TokenType.output, usage.completion);
    this.#countTokens(TokenType.cached, usage.cached);
  }

  /** What a reply used that its client never gets: on nobody's account, but not for free. */
  discarded(usage: Usage | undefined): void {
    if (usage === undefined) return;
    this.#countTokens(TokenType.input, usage.prompt, catalogue.discardedTokens);
    this.#countTokens(TokenType.output, usage.completion, catalogue.discardedTokens);
    this.#countTokens(TokenType.cached, usage.cached, catalogue.discardedTokens);
  }

  get usage(): Usage | undefined {
    return this.#usage;
  }

  /** Once the response ring is at `position`, whoever ends the answer in our place ends it well. */
  complete(lease: number, position: number): void {
    const { words, at } = this.#services.slots;
    words[this.#row + at.completeAt] = position;
    words[this.#row + at.complete] = lease;
  }

  failed(error: number): void {
    const { slots } = this.#services;
    this.#error = error;
    slots.words[this.#row + slots.at.error] = error;
  }

  /** A stream that broke goes on, or does not. */
  continued(result: Result): void {
    this.#services.metrics.addPair(catalogue.streamContinuations, this.#model, result, 1);
  }

  /** The client is gone and the replica's connection has been told. */
  cancelled(us: number): void {
    const { slots, metrics } = this.#services;
    const goneUs = slots.readTime(this.#slot, slots.at.clientGoneUs);
    if (goneUs > 0) metrics.observe(catalogue.cancel, 0, us - goneUs);
  }

  ended(us: number, produced: number): void {
    const { slots } = this.#services;
    slots.words[this.#row + slots.at.producedBytes] = produced;
    slots.writeTime(this.#slot, slots.at.endedUs, us);
  }

  /** The exchange is over, however it ended; the first call counts. */
  endSpan(lease: number, exchange: ExchangeKind, outcome: Outcome, error: number): void {
    const { spans, slots } = this.#services;
    const trace = this.#trace;
    if (trace === undefined || spans === undefined) return;
    this.#trace = undefined;
    trace.end(spans, slots, this.#slot, lease, exchange, {
      startUs: this.#startUs,
      sentUs: this.#sentUs,
      firstByteUs: this.#firstByteUs,
      status: this.#status,
      outcome,
      error,
      inputTokens: this.#usage?.prompt ?? -1,
      outputTokens: this.#usage?.completion ?? -1,
      cachedTokens: this.#usage?.cached ?? -1,
    });
  }

  conflict(): void {
    this.#services.metrics.add(catalogue.settleConflicts, 0, 1);
  }

  #countTokens(type: TokenType, count: number, of: CounterMetric = catalogue.tokens): void {
    if (count > 0) this.#services.metrics.addPair(of, this.#model, type, count);
  }
}
