/**
 * Doorbells: wakers that publish and ring, a sleeper that arms, looks once more and sleeps.
 *
 * Promises: no lost wake-up, without any help of a time limit or fallback; a bell reads awake while its
 * owner works; one waker per sleep notifies; a stopped bell leaves no waiter behind.
 */
import type { ThreadSpec, World } from './explorer.ts';
import type { Search, ShmModules } from './search.ts';
import { type Run, type ThreadApi, takeAsyncWaiter, withGlobals } from './virtual-thread.ts';

interface BellCase {
  readonly wakers: number;
  readonly messages: number;
  /** Blocking: waits that may time out. Event loop: turns of the fallback timer. */
  readonly timers?: number;
}
const bell = 32;
const mailAt = (waker: number): number => 64 + waker * 32;
const asleep = 1;

/** A large search merges equal turns of the loop; a small one does not and so sees a loop that spins. */
function turn(t: ThreadApi, bells: BellCase, ...notes: number[]): void {
  if (bells.wakers * bells.messages > 2) t.mark(...notes);
  else t.checkpoint();
}

function bellRegion(wakers: number): SharedArrayBuffer {
  return new SharedArrayBuffer((64 + wakers * 32) * 4);
}

function wakerThreads(m: ShmModules, region: SharedArrayBuffer, bells: BellCase): ThreadSpec[] {
  return Array.from({ length: bells.wakers }, (_, waker) => ({
    name: `waker ${waker}`,
    run(t: ThreadApi) {
      const words = new Int32Array(region);
      for (let message = 1; message <= bells.messages; message++) {
        t.mark(message);
        Atomics.store(words, mailAt(waker), message);
        m.doorbell.ring(words, bell);
      }
      t.mark(bells.messages + 1);
    },
  }));
}

/** Reads every mailbox; what it returns is whether one has news. */
class Mail {
  readonly #words: Int32Array;
  readonly #seen: number[];
  readonly #last: number;

  constructor(words: Int32Array, { wakers, messages }: BellCase) {
    this.#words = words;
    this.#seen = new Array<number>(wakers).fill(0);
    this.#last = messages;
  }
  look(): boolean {
    let hasNews = false;
    for (let waker = 0; waker < this.#seen.length; waker++) {
      const message = Atomics.load(this.#words, mailAt(waker));
      if (message !== this.#seen[waker]) hasNews = true;
      this.#seen[waker] = message;
    }
    return hasNews;
  }
  get seen(): readonly number[] {
    return this.#seen;
  }
  get isComplete(): boolean {
    return this.#seen.every((message) => message === this.#last);
  }
}

function blockingWorld(m: ShmModules, bells: BellCase): World {
  const region = bellRegion(bells.wakers);
  const sleeper: Run = (t) => {
    const words = new Int32Array(region);
    const own = new m.doorbell.BlockingBell(words, bell);
    const mail = new Mail(words, bells);
    let timers = bells.timers ?? 0;
    while (!mail.isComplete) {
      turn(t, bells, timers, ...mail.seen);
      t.check(Atomics.load(words, bell) !== asleep, 'the bell reads awake while its owner works');
      if (mail.look()) continue;
      own.arm();
      if (mail.look()) {
        own.disarm();
        continue;
      }
      t.mayTimeOut = timers > 0 && t.choose(2) === 1;
      if (t.mayTimeOut) timers--;
      own.sleep(1000);
    }
  };
  const threads = [{ name: 'sleeper', run: sleeper }, ...wakerThreads(m, region, bells)];
  return { regions: [region], threads };
}

/** Runs the callbacks of an event loop: immediates first, then the bell's waiter or the fallback. */
function eventLoopWorld(m: ShmModules, bells: BellCase): World {
  const region = bellRegion(bells.wakers);
  const loop: Run = (t) => {
    const immediates: (() => void)[] = [];
    let fallback = (): void => {};
    const timers = {
      setImmediate: (callback: () => void) => immediates.push(callback),
      setInterval(callback: () => void) {
        fallback = callback;
      },
      clearInterval() {
        fallback = () => {};
      },
    };
    withGlobals(timers, () => {
      const words = new Int32Array(region);
      const mail = new Mail(words, bells);
      let looks = 0; // in this turn
      let isBusy = false; // the last look of a turn found work, and the next turn has not begun
      const own = new m.doorbell.EventLoopBell(words, bell, () => {
        looks++;
        if (isBusy) t.check(Atomics.load(words, bell) !== asleep, 'awake while there is work');
        const hasNews = mail.look();
        isBusy = looks === 2 && hasNews;
        return hasNews; // there may be more
      });
      own.start();
      let waiter: (() => void) | undefined;
      let left = bells.timers ?? 0;
      while (!mail.isComplete) {
        waiter = takeAsyncWaiter(t) ?? waiter;
        const state = [immediates.length, waiter === undefined ? 0 : 1, isBusy ? 1 : 0];
        turn(t, bells, left, ...state, ...mail.seen);
        t.check(immediates.length < 2, 'one immediate at a time');
        if (left > 0 && t.choose(2) === 1) {
          left--;
          looks = 0;
          fallback();
          continue;
        }
        looks = 0;
        const immediate = immediates.shift();
        if (immediate !== undefined) immediate();
        else {
          t.check(waiter !== undefined, 'a loop without work has a waiter');
          t.awaitNotified();
          const callback = waiter!;
          waiter = undefined;
          callback();
        }
      }
      waiter = takeAsyncWaiter(t) ?? waiter;
      own.stop();
      if (waiter !== undefined) t.awaitNotified();
      waiter?.();
    });
  };
  const threads = [{ name: 'event loop', run: loop }, ...wakerThreads(m, region, bells)];
  return { regions: [region], threads };
}

/** Of the wakers that find the same sleep, one notifies. */
function oneNotifies(m: ShmModules): World {
  const region = bellRegion(2);
  new Int32Array(region)[bell] = asleep;
  const run: Run = (t) => {
    m.doorbell.ring(new Int32Array(region), bell);
    t.mark(t.notifies);
  };
  return {
    regions: [region],
    threads: [
      { name: 'waker 0', run },
      { name: 'waker 1', run },
    ],
    atEnd(view) {
      const count = view.notes(0)[0]! + view.notes(1)[0]!;
      if (count !== 1) throw new Error(`${count} wakers notified`);
    },
  };
}

/** A race with this plain read would mean that ringing writes the line of an owner that is awake. */
function awakeBell(m: ShmModules): World {
  const region = bellRegion(1);
  return {
    regions: [region],
    threads: [
      { name: 'waker', run: () => m.doorbell.ring(new Int32Array(region), bell) },
      {
        name: 'reader',
        run: (t) => t.check(new Int32Array(region)[bell] !== asleep, 'it is awake'),
      },
    ],
  };
}

export function doorbellSearches(m: ShmModules): Search[] {
  const each = (kind: string, world: (m: ShmModules, bells: BellCase) => World): Search[] =>
    [
      { wakers: 1, messages: 2 },
      { wakers: 2, messages: 1 },
      { wakers: 2, messages: 2 },
      { wakers: 1, messages: 2, timers: 2 },
    ].map((bells) => ({
      name: `${kind}: ${bells.wakers} wakers x ${bells.messages}, ${bells.timers ?? 0} timers`,
      world: () => world(m, bells),
    }));
  return [
    ...each('blocking', blockingWorld),
    ...each('event loop', eventLoopWorld),
    { name: 'ringing an awake bell writes nothing', world: () => awakeBell(m) },
    { name: 'one waker per sleep notifies', world: () => oneNotifies(m) },
  ];
}
