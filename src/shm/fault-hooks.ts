/**
 * Fault hooks: what a test may do to the thread that imports this. Any thread of the gateway; imported
 * only through fault-hooks-loader.ts, so nothing here exists in a gateway that is not under test.
 *
 * Faults of rings, clocks and wake-ups replace the function that would do the work; crashes wait for
 * their stage (lib/fault-point.ts).
 */
import { InvariantError } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import { type FaultStage, setFaultHook } from '../lib/fault-point.ts';
import { ByteRingProducer } from './byte-ring.ts';
import { RequestRingProducer } from './request-ring.ts';
import { SpscProducer } from './spsc-ring.ts';
import type { CrashKind, Fault, FullRing } from './threads.ts';

/** Room for a thread under test, so that it runs out of memory soon and the machine does not. */
export const hookedOldGenerationMb = 48;

const pause = new Int32Array(new SharedArrayBuffer(4));
const sleepMs = (ms: number): string => Atomics.wait(pause, 0, 0, ms);

export class FaultHooks {
  /** Asks the main thread to terminate this one. */
  readonly #askTermination: () => void;
  readonly #fullUntilMs: Record<FullRing, number> = {
    request: 0,
    dispatch: 0,
    reply: 0,
    response: 0,
  };
  #crash: { stage: FaultStage; how: CrashKind; left: number } | undefined;
  #skewMs = 0;
  #loseEvery = Number.POSITIVE_INFINITY;

  constructor(askTermination: () => void) {
    this.#askTermination = askTermination;
    setFaultHook((stage) => this.#at(stage));
    this.#patchRings();
    this.#patchNotify();
    const now = Date.now;
    Date.now = () => now() + this.#skewMs;
  }

  apply(fault: Fault): void {
    switch (fault.kind) {
      case 'stall':
        sleepMs(fault.ms);
        break;
      case 'cpuHog': {
        const endMs = nowMs() + fault.ms;
        while (nowMs() < endMs);
        break;
      }
      case 'crash':
        this.#crash = { stage: fault.stage, how: fault.how, left: fault.after };
        break;
      case 'ringFull':
        this.#fullUntilMs[fault.ring] = nowMs() + fault.ms;
        break;
      case 'loseWakeup':
        this.#loseEvery = fault.every === 0 ? Number.POSITIVE_INFINITY : fault.every;
        break;
      case 'clockSkew':
        this.#skewMs = fault.ms;
        break;
    }
  }

  #at(stage: FaultStage): void {
    const crash = this.#crash;
    if (crash?.stage !== stage || crash.left-- > 0) return;
    this.#crash = undefined;
    switch (crash.how) {
      case 'throw':
        throw new InvariantError(`injected at ${stage}`);
      case 'exit':
        process.exit(3);
        break;
      case 'oom':
        eatMemory();
        break;
      case 'terminate':
        this.#askTermination();
        for (;;) sleepMs(1000); // not one instruction further
    }
  }

  #isFull(ring: FullRing): boolean {
    return nowMs() < this.#fullUntilMs[ring];
  }

  #patchRings(): void {
    const isFull = (ring: FullRing): boolean => this.#isFull(ring);
    const { push } = RequestRingProducer.prototype;
    RequestRingProducer.prototype.push = function (...args) {
      return !isFull('request') && push.apply(this, args);
    };
    const { reserve } = ByteRingProducer.prototype;
    ByteRingProducer.prototype.reserve = function (...args) {
      return isFull('response') ? -1 : reserve.apply(this, args);
    };
    const { begin } = SpscProducer.prototype;
    SpscProducer.prototype.begin = function () {
      // The event ring has room by construction: a full one is no fault but a broken invariant.
      if ('more' in this.at && isFull('dispatch')) return -1;
      if (!('kind' in this.at) && isFull('reply')) return -1;
      return begin.apply(this);
    };
  }

  #patchNotify(): void {
    const notify = Atomics.notify;
    let calls = 0;
    Atomics.notify = ((...args: Parameters<typeof notify>): number => {
      calls++;
      return calls % this.#loseEvery === 0 ? 0 : notify(...args);
    }) as typeof notify;
  }
}

/** Small objects: a large array would abort the process (RELIABILITY 4). */
function eatMemory(): void {
  interface Link {
    readonly next: Link | undefined;
    readonly text: string;
  }
  let last: Link | undefined;
  for (let i = 0; ; i++) last = { next: last, text: `memory ${i}` };
}
