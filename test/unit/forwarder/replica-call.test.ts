/** What is thrown at an end is lost on undici where nobody is told of the end any more: then the thread ends. */
import type { Dispatcher } from 'undici';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { AttemptClock } from '../../../src/forwarder/clocks.ts';
import type { Failure } from '../../../src/forwarder/failure.ts';
import type { ReplicaPool } from '../../../src/forwarder/pools.ts';
import { ReplicaCall } from '../../../src/forwarder/replica-call.ts';
import type { Services } from '../../../src/forwarder/services.ts';

const thrown = new TypeError('of whoever hears of the end');
const controller = {} as Dispatcher.DispatchController;
const chunk = new Uint8Array(1);

/** Throws where it is told to, and notes every end it hears of. */
class Call extends ReplicaCall {
  readonly ends: (Failure | undefined)[] = [];
  readonly clock = {} as AttemptClock;
  readonly #throwsAt: 'body' | 'end';

  constructor(throwsAt: 'body' | 'end') {
    const services = { progress: { mark: () => {} } } as unknown as Services;
    const pool = { address: { row: 0 } } as unknown as ReplicaPool;
    super(services, pool, { path: '/', method: 'POST' });
    this.#throwsAt = throwsAt;
  }

  onBody(): void {
    if (this.#throwsAt === 'body') throw thrown;
  }
  onEnd(broken: Failure | undefined): void {
    if (this.#throwsAt === 'end') throw thrown;
    this.ends.push(broken);
  }
  onSent(): void {}
  onHead(): void {}
  onRefused(): void {}
  onAnswer(): void {}
  onClosed(): void {}
  check(): void {}
  stop(): void {}
}

/** What is to be thrown at nobody, which ends the thread. */
let last: (() => void)[];
beforeEach(() => {
  last = [];
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((run) => void last.push(run));
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** As undici does: what a callback throws comes back as the error of the exchange. */
function comesBack(call: Call, callback: () => void): void {
  expect(callback).toThrow(thrown);
  call.onResponseError(controller, thrown);
}

test('what an end in order throws ends the thread, once', () => {
  const call = new Call('end');
  comesBack(call, () => call.onResponseEnd());
  expect(last).toHaveLength(1);
  expect(last[0]).toThrow(thrown);
});

test('what a broken end throws ends the thread, once', () => {
  const call = new Call('end');
  comesBack(call, () => call.onResponseError(controller, new Error('reset')));
  expect(last).toHaveLength(1);
  expect(last[0]).toThrow(thrown);
});

test('what is thrown before the end is an end like any other, and the thread goes on', () => {
  const call = new Call('body');
  comesBack(call, () => call.onResponseData(controller, chunk));
  expect(last).toEqual([]);
  expect(call.ends).toHaveLength(1);
  expect(call.ends[0]).toBeDefined();
});
