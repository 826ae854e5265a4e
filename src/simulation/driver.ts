/**
 * Driver: one run on a virtual clock. Fleet events, engine steps, news of tokens, the router's timers and
 * arrivals, in the order (time, source, sequence); no wall clock, no randomness of its own.
 *
 * The network takes no time; a token is heard of when the engine's front end has passed it on. The run
 * goes on until the last request has ended. The first `warmUpShare` of the requests are served but not
 * measured.
 */
import { assert } from '../lib/assert.ts';
import { Engine, type EngineSink } from '../replica/engine/engine.ts';
import type { EngineModel } from '../replica/engine/engine-model.ts';
import { Arrivals } from './arrivals.ts';
import { EventHeap } from './event-heap.ts';
import { type FleetEvent, inOrder } from './fleet-events.ts';
import { News } from './news.ts';
import { Observer, samplePeriodUs } from './observer.ts';
import { Outcome, Records } from './records.ts';
import type { Router, RouterContext, RouterSink } from './router.ts';
import { NO_REQUEST, type Workload } from './workload.ts';

export interface RunPlan {
  readonly workload: Workload;
  readonly model: EngineModel;
  /** Replicas at the start. */
  readonly replicas: number;
  readonly events: readonly FleetEvent[];
  /** Time to think between an answer and the next turn of its chat; undefined: an open loop. */
  readonly thinkUs?: number;
  readonly warmUpShare: number;
  readonly seed: number;
  createRouter(context: RouterContext): Router;
}

export interface RunResult {
  readonly records: Records;
  readonly observer: Observer;
  /** First request that is measured. */
  readonly measuredFrom: number;
  readonly endUs: number;
  readonly preemptions: number;
}

export function simulate(plan: RunPlan): RunResult {
  return new Run(plan).finish();
}

class Run implements RouterSink {
  readonly #plan: RunPlan;
  readonly #workload: Workload;
  readonly #records: Records;
  readonly #observer: Observer;
  readonly #arrivals: Arrivals;
  readonly #engines: readonly Engine[];
  readonly #router: Router;
  /** Next step of each engine; the row is the source. */
  readonly #steps: EventHeap;
  readonly #events: readonly FleetEvent[];
  readonly #up: Uint8Array;
  readonly #pendingTokens: Float64Array;
  /** Time each engine has spent in steps, up to #busyFromUs where one is running. */
  readonly #busyUs: Float64Array;
  readonly #busyFromUs: Float64Array;
  readonly #measuredFrom: number;
  readonly #news = new News();
  #nextEvent = 0;
  #nextSampleUs = samplePeriodUs;
  #nowUs = 0;
  #unfinished: number;

  constructor(plan: RunPlan) {
    const { workload } = plan;
    const rows = plan.events.reduce((most, { row }) => Math.max(most, row + 1), plan.replicas);
    this.#plan = plan;
    this.#workload = workload;
    this.#unfinished = workload.count;
    this.#records = new Records(workload.count);
    this.#observer = new Observer(rows);
    this.#arrivals = new Arrivals(workload, plan.thinkUs);
    this.#events = inOrder(plan.events);
    this.#engines = this.#createEngines(rows);
    this.#steps = new EventHeap(rows);
    this.#up = new Uint8Array(rows);
    this.#pendingTokens = new Float64Array(rows);
    this.#busyUs = new Float64Array(rows);
    this.#busyFromUs = new Float64Array(rows);
    this.#measuredFrom = Math.floor(workload.count * plan.warmUpShare);
    if (this.#measuredFrom === 0) this.#observer.start();
    this.#router = plan.createRouter({
      sink: this,
      seed: plan.seed,
      rows,
      signals: (row) => this.#engine(row),
    });
    for (let row = 0; row < plan.replicas; row++) this.#bringUp(row);
  }

  finish(): RunResult {
    while (this.#unfinished > 0) this.#handleNext();
    assert(
      this.#pendingTokens.every((tokens) => tokens === 0),
      'nothing is left at any replica',
    );
    return {
      records: this.#records,
      observer: this.#observer,
      measuredFrom: this.#measuredFrom,
      endUs: this.#nowUs,
      preemptions: this.#engines.reduce((sum, { preemptions }) => sum + preemptions, 0),
    };
  }

  dispatch(request: number, row: number): void {
    const records = this.#records;
    assert(records.outcome[request] === Outcome.open && this.#up[row] === 1);
    assert(records.row[request] === NO_REQUEST, 'a request runs on one replica at a time');
    records.row[request] = row;
    records.dispatches[request] = (records.dispatches[request] as number) + 1;
    records.dispatchUs[request] = this.#nowUs;
    const promptTokens = this.#workload.promptTokens[request] as number;
    const outputTokens = this.#workload.outputTokens[request] as number;
    this.#addPending(row, promptTokens);
    const engine = this.#engine(row);
    if (engine.nextUs === Number.POSITIVE_INFINITY) this.#busyFromUs[row] = this.#nowUs;
    engine.submit(request, promptTokens, outputTokens, this.#blocksOf(request), this.#nowUs);
    this.#steps.set(row, engine.nextUs);
  }

  refuse(request: number): void {
    this.#close(request, Outcome.refused);
  }

  #createEngines(rows: number): Engine[] {
    const { model, workload } = this.#plan;
    const sink: EngineSink = {
      firstToken: (request, us) => {
        const row = this.#records.row[request] as number;
        this.#records.firstUs[request] = us;
        this.#records.hitTokens[request] = this.#engine(row).cachedTokens(request);
        this.#addPending(row, -(this.#workload.promptTokens[request] as number));
        this.#news.add(us, request, false);
      },
      finished: (request, us) => {
        this.#records.finishUs[request] = us;
        this.#news.add(us, request, true);
      },
      step: (durationUs, decodes) => this.#observer.step(durationUs, decodes),
    };
    return Array.from({ length: rows }, () => new Engine(model, workload.blockTokens, sink));
  }

  /** One event. At one time: the fleet, the engines by row, news, timers, arrivals. */
  #handleNext(): void {
    const eventUs = this.#events[this.#nextEvent]?.atUs ?? Number.POSITIVE_INFINITY;
    const stepUs = this.#steps.nextUs;
    const newsUs = this.#news.nextUs;
    const timerUs = this.#router.nextTimerUs;
    const nextUs = Math.min(eventUs, stepUs, newsUs, timerUs, this.#arrivals.nextUs);
    assert(nextUs !== Number.POSITIVE_INFINITY, 'what has not ended has something to wait for');
    this.#sampleUntil(nextUs);
    assert(nextUs >= this.#nowUs, 'time does not go back');
    this.#nowUs = nextUs;
    if (eventUs === nextUs) this.#fleetEvent(this.#events[this.#nextEvent++] as FleetEvent);
    else if (stepUs === nextUs) this.#advance(this.#steps.next);
    else if (newsUs === nextUs) this.#hear();
    else if (timerUs === nextUs) this.#router.tick(nextUs);
    else this.#arrive();
  }

  #advance(row: number): void {
    const engine = this.#engine(row);
    this.#addBusy(row, this.#nowUs);
    engine.advance();
    this.#steps.set(row, engine.nextUs);
  }

  #hear(): void {
    const { request, isEnd } = this.#news.take();
    // The replica died when this was on its way.
    if (this.#records.outcome[request] !== Outcome.open) return;
    if (isEnd) {
      this.#close(request, Outcome.finished);
      this.#router.finished(request, this.#nowUs);
    } else this.#router.firstToken(request, this.#nowUs);
  }

  #arrive(): void {
    const request = this.#arrivals.take();
    if (request === NO_REQUEST) return;
    if (request === this.#measuredFrom) this.#observer.start();
    this.#records.sentUs[request] = this.#nowUs;
    this.#router.arrive(request, this.#nowUs);
  }

  #close(request: number, outcome: Outcome): void {
    assert(this.#records.outcome[request] === Outcome.open, 'a request ends once');
    this.#records.outcome[request] = outcome;
    this.#unfinished--;
    this.#arrivals.ended(request, this.#nowUs);
  }

  #fleetEvent({ kind, row, factor }: FleetEvent): void {
    if (kind === 'slow') this.#engine(row).slowness = factor ?? 1;
    else if (kind === 'kill') this.#kill(row);
    else this.#bringUp(row);
  }

  #bringUp(row: number): void {
    assert(this.#up[row] === 0, 'it was not up');
    this.#up[row] = 1;
    this.#router.replicaUp(row, this.#nowUs);
  }

  #kill(row: number): void {
    assert(this.#up[row] === 1, 'it was up');
    this.#up[row] = 0;
    if (this.#engine(row).nextUs !== Number.POSITIVE_INFINITY) this.#addBusy(row, this.#nowUs);
    this.#engine(row).clear();
    this.#steps.set(row, Number.POSITIVE_INFINITY);
    this.#pendingTokens[row] = 0;
    this.#router.replicaDown(row, this.#nowUs);
    const { outcome, firstUs, finishUs, row: rows } = this.#records;
    for (let request = 0; request < rows.length; request++) {
      if (rows[request] !== row || outcome[request] !== Outcome.open) continue;
      // Its last token had left the engine.
      if (finishUs[request] !== 0) continue;
      const retry = firstUs[request] === 0;
      rows[request] = NO_REQUEST;
      if (!retry) this.#close(request, Outcome.broken);
      this.#router.failed(request, retry, this.#nowUs);
    }
  }

  #sampleUntil(us: number): void {
    for (; this.#nextSampleUs <= us; this.#nextSampleUs += samplePeriodUs) {
      const at = this.#nextSampleUs;
      for (let row = 0; row < this.#up.length; row++) {
        if (this.#engine(row).nextUs !== Number.POSITIVE_INFINITY) this.#addBusy(row, at);
      }
      this.#observer.sample(this.#busyUs, this.#pendingTokens, this.#up);
    }
  }

  /** Of an engine in a step. */
  #addBusy(row: number, untilUs: number): void {
    const fromUs = this.#busyFromUs[row] as number;
    this.#busyUs[row] = (this.#busyUs[row] as number) + untilUs - fromUs;
    this.#busyFromUs[row] = untilUs;
  }

  #addPending(row: number, tokens: number): void {
    this.#pendingTokens[row] = (this.#pendingTokens[row] as number) + tokens;
  }

  #blocksOf(request: number): Int32Array {
    const { blocks, blockStart } = this.#workload;
    return blocks.subarray(blockStart[request], blockStart[request + 1]);
  }

  #engine(row: number): Engine {
    return this.#engines[row] as Engine;
  }
}
