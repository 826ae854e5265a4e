/**
 * What a load run measures: outcomes, tokens and latencies in fixed memory. Latencies count from the
 * intended send time, so a target that stalls is charged for every request it kept waiting, also for
 * those that could not be sent. Warm-up requests are checked and counted apart.
 */

import type { Connection } from './connection.ts';
import type { Exchange } from './exchange.ts';
import { Latency } from './latency.ts';
import { Outcome, outcomeNames } from './outcome.ts';

/** Limits in milliseconds a request must meet to count as good; undefined is no limit. */
export interface Goodput {
  readonly ttft?: number;
  readonly tpot?: number;
  readonly e2el?: number;
}

export class LoadMetrics {
  readonly ttft = new Latency();
  readonly tpot = new Latency();
  readonly itl = new Latency();
  readonly e2el = new Latency();
  readonly clientQueue = new Latency();
  readonly ttftFromSend = new Latency();
  readonly e2elFromSend = new Latency();
  readonly outcomes: number[] = outcomeNames.map(() => 0);
  readonly statuses = new Map<number, number>();
  /** Of the `connect` outcomes. */
  readonly errnos = new Map<string, number>();
  readonly warmup = { completed: 0, failed: 0 };
  /** Requests written to a connection, warm-up included: what the replicas should have seen. */
  sent = 0;
  /** Requests that waited longer than the limit and were never sent; part of `timeout`. */
  unsent = 0;
  good = 0;
  inputTokens = 0;
  outputTokens = 0;
  events = 0;
  inFlightMax = 0;
  tokensPerSecondMax = 0;
  /** Token events of all streams up to this moment, warm-up included. */
  tokenEvents = 0;

  readonly #goodput: Goodput;
  readonly #promptTokens: number;
  #tokensThisSecond = 0;
  #secondEndsUs = 0;

  constructor(goodput: Goodput, promptTokens: number) {
    this.#goodput = goodput;
    this.#promptTokens = promptTokens;
  }

  get completed(): number {
    return this.outcomes[Outcome.ok] as number;
  }

  get failed(): number {
    let all = 0;
    for (const count of this.outcomes) all += count;
    return all - this.completed;
  }

  tokenGap(gapUs: number, measured: boolean): void {
    this.#tokensThisSecond++;
    this.tokenEvents++;
    if (measured) this.itl.record(gapUs);
  }

  /** Called from the generator's tick, so a second is one to within that tick. */
  closeSecond(atUs: number): void {
    if (atUs < this.#secondEndsUs) return;
    if (this.#secondEndsUs > 0 && this.#tokensThisSecond > this.tokensPerSecondMax) {
      this.tokensPerSecondMax = this.#tokensThisSecond;
    }
    this.#tokensThisSecond = 0;
    this.#secondEndsUs = atUs + 1e6;
  }

  /** A request that was due, but could not be sent within the limit. */
  addUnsent(measured: boolean): void {
    if (!measured) {
      this.warmup.failed++;
      return;
    }
    this.unsent++;
    this.outcomes[Outcome.timeout] = (this.outcomes[Outcome.timeout] as number) + 1;
  }

  addErrno({ exchange, connectErrno }: Connection): void {
    if (!exchange.measured || connectErrno === '') return;
    this.errnos.set(connectErrno, (this.errnos.get(connectErrno) ?? 0) + 1);
  }

  add(exchange: Exchange, outcome: Outcome, atUs: number): void {
    if (exchange.sentUs > 0) this.sent++;
    // Everything but the gaps of a stream: its first token, or all tokens of one JSON answer.
    if (!exchange.parser.eventStream) this.#tokensThisSecond += exchange.outputTokens;
    else if (exchange.firstTokenUs > 0) {
      this.#tokensThisSecond++;
      this.tokenEvents++;
    }
    if (!exchange.measured) {
      if (outcome === Outcome.ok) this.warmup.completed++;
      else this.warmup.failed++;
      return;
    }
    this.outcomes[outcome] = (this.outcomes[outcome] as number) + 1;
    const { status } = exchange.parser;
    if (status > 0) this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
    this.events += exchange.answer.events;
    if (outcome === Outcome.ok) this.#addCompleted(exchange, atUs);
  }

  #addCompleted(exchange: Exchange, atUs: number): void {
    const { intendedUs, sentUs, firstTokenUs, lastTokenUs, outputTokens, answer } = exchange;
    this.outputTokens += outputTokens;
    this.inputTokens += answer.promptTokens >= 0 ? answer.promptTokens : this.#promptTokens;
    const e2elUs = atUs - intendedUs;
    this.e2el.record(e2elUs);
    this.e2elFromSend.record(atUs - sentUs);
    this.clientQueue.record(sentUs - intendedUs);
    let ttftUs = 0;
    let tpotUs = 0;
    if (firstTokenUs > 0) {
      ttftUs = firstTokenUs - intendedUs;
      this.ttft.record(ttftUs);
      this.ttftFromSend.record(firstTokenUs - sentUs);
      if (outputTokens > 1) {
        tpotUs = (lastTokenUs - firstTokenUs) / (outputTokens - 1);
        this.tpot.record(tpotUs);
      }
    }
    const { ttft, tpot, e2el } = this.#goodput;
    if (ttft !== undefined && ttftUs > ttft * 1000) return;
    if (tpot !== undefined && tpotUs > tpot * 1000) return;
    if (e2el !== undefined && e2elUs > e2el * 1000) return;
    this.good++;
  }
}
