/**
 * One HTTP exchange with one replica, whoever it is for: the replica's side of an attempt or a batch.
 * Forwarder threads; never waits.
 *
 * Every end passes through `leave`, so no connection goes on reading a request body that the acceptor
 * is about to free. Late callbacks of undici find `over`. What they throw goes to undici, which tells
 * nobody of it once the exchange is closed: a broken invariant, and whatever is thrown at that end or behind
 * it, ends the thread by itself, and its successor tells of the end.
 */
import type { Dispatcher } from 'undici';
import { InvariantError } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { type AnswerHeaders, single } from './answer-head.ts';
import type { AttemptClock, Clocked } from './clocks.ts';
import * as failing from './failure.ts';
import { type Failure, failures, Stage } from './failure.ts';
import type { ConnectionUser, ReplicaPool } from './pools.ts';
import { attemptOver, ReplicaLink } from './replica-link.ts';
import type { Services } from './services.ts';

/** How long an answer nobody wants any more may go on before its connection is closed. */
const drainUsMax = 1_000_000;

export abstract class ReplicaCall implements ConnectionUser, Clocked {
  link = new ReplicaLink();
  /** Among the open calls of the forwarder. */
  place = -1;
  protected readonly services: Services;
  protected readonly pool: ReplicaPool;
  protected stage: Stage = Stage.connecting;
  /** The outcome is fixed; what undici still says is late. */
  protected over = false;
  protected paused = false;
  #request: Dispatcher.DispatchOptions;
  /** undici is done with the exchange, or will find it withdrawn. */
  #closed = false;
  /** The thread ends by it. */
  #isBroken = false;

  constructor(services: Services, pool: ReplicaPool, request: Dispatcher.DispatchOptions) {
    this.services = services;
    this.pool = pool;
    this.#request = request;
  }

  protected abstract get clock(): AttemptClock;
  /** The request is written to its connection. */
  protected abstract onSent(us: number): void;
  protected abstract onHead(status: number, us: number): void;
  /** A head that tells of a failure. */
  protected abstract onRefused(failure: Failure, retryAfterMs: number): void;
  protected abstract onAnswer(status: number, headers: AnswerHeaders): void;
  protected abstract onBody(chunk: Uint8Array, controller: Dispatcher.DispatchController): void;
  /** The exchange has ended, in order or with what `broken` says. */
  protected abstract onEnd(broken: Failure | undefined): void;
  /** Nothing of the HTTP exchange is left. */
  protected abstract onClosed(): void;
  abstract check(us: number): void;
  /** The gateway stops: an answer that is not through ends here. */
  abstract stop(): void;

  /** undici is done with the exchange. */
  protected get closed(): boolean {
    return this.#closed;
  }

  start(): void {
    this.pool.dispatch(this.#request, this);
    faultPoint('connecting');
  }

  /** The exchange has ended and nothing of it is used: the same attempt goes on with another request. */
  protected startAgain(request: Dispatcher.DispatchOptions): void {
    this.#request = request;
    this.#closed = false;
    this.link = new ReplicaLink();
    this.stage = Stage.connecting;
    this.clock.startAgain(nowUs());
    this.start();
  }

  forgive(gapUs: number): void {
    this.clock.forgive(gapUs);
  }

  /** Looks after the rest of an answer that nobody wants any more. */
  protected checkDrained(us: number): void {
    if (!this.#closed && this.clock.silentUs(us) > drainUsMax) this.#cut();
  }

  /** `drain` reads a short rest of the answer, so that the connection can be used again. */
  protected leave(how: 'drain' | 'cut'): void {
    this.over = true;
    if (this.#closed) this.onClosed();
    else if (how === 'cut' || this.paused || this.link.requestIsUnsent) this.#cut();
    else this.clock.restart(nowUs());
  }

  #cut(): void {
    this.#closed = true;
    this.link.cut();
    this.onClosed();
  }

  // --- undici -----------------------------------------------------------------------------------

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // Thrown at undici: the one way to take back a request before it is written.
    if (this.over) throw attemptOver;
    try {
      this.#start(controller);
    } catch (error) {
      throw this.#fatal(error);
    }
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: AnswerHeaders,
  ): void {
    if (status < 200 || this.over) return; // 102 and 103 say nothing that we pass on
    try {
      this.#answer(status, headers);
    } catch (error) {
      throw this.#fatal(error);
    }
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    try {
      this.#data(controller, chunk);
    } catch (error) {
      throw this.#fatal(error);
    }
  }

  onResponseEnd(): void {
    try {
      this.#end();
    } catch (error) {
      throw this.#fatal(error);
    }
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (error instanceof InvariantError) this.#fatal(error);
    try {
      this.#fail(error);
    } catch (thrown) {
      throw this.#fatal(thrown);
    }
  }

  /** Returns what was thrown, behind which the thread may end. */
  #fatal(error: unknown): unknown {
    const ends = error instanceof InvariantError || this.over || this.#closed;
    if (ends && !this.#isBroken) {
      this.#isBroken = true;
      queueMicrotask(() => {
        throw error;
      });
    }
    return error;
  }

  #start(controller: Dispatcher.DispatchController): void {
    const us = nowUs();
    this.link.started(controller);
    this.stage = Stage.sent;
    this.clock.restart(us);
    this.onSent(us);
    faultPoint('sent');
  }

  #answer(status: number, headers: AnswerHeaders): void {
    this.stage = Stage.head;
    faultPoint('headers');
    this.onHead(status, nowUs());
    const { address, own } = this.pool;
    const sent = this.#request.headers as readonly string[];
    const failure = failing.failureOfHead(status, headers, own.hasKey, sent);
    if (failure === undefined) {
      this.onAnswer(status, headers);
      return;
    }
    if (isOfKey(failure)) {
      this.services.onMisconfigured(address.name, failure.error);
    }
    const exact = single(headers['retry-after-ms']);
    const coarse = single(headers['retry-after']);
    this.leave('drain');
    this.onRefused(failure, failing.retryAfterMs(exact, coarse, Date.now()));
  }

  #data(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.over) {
      this.link.drain(chunk.length);
      return;
    }
    this.stage = Stage.body;
    this.services.progress.mark(this.pool.address.row, nowUs());
    this.onBody(chunk, controller);
    faultPoint('mid-event');
  }

  #end(): void {
    this.#closed = true;
    this.link.dropUnsent();
    if (this.over) this.onClosed();
    else this.onEnd(undefined);
  }

  #fail(error: Error): void {
    if (this.#closed) return;
    if (!this.over && this.stage === Stage.sent && this.link.takeStale(error)) {
      this.#retryFresh();
      return;
    }
    this.#closed = true;
    if (this.over) this.onClosed();
    else this.onEnd(failing.failureOfError(error, this.stage));
  }

  #retryFresh(): void {
    this.stage = Stage.connecting;
    this.clock.restart(nowUs());
    this.pool.dispatchFresh(this.#request, this);
  }
}

/** Somebody has to look at a key. */
const isOfKey = (failure: Failure): boolean =>
  failure === failures.unauthorized ||
  failure === failures.forbidden ||
  failure === failures.clientKey;
