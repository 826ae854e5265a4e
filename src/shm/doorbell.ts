/**
 * Doorbells: one word per thread, 1 while the thread sleeps or is about to, else 0.
 *
 * Sleeper: arm (store 1), look at every ring once more, sleep only if all are empty. Waker: publish,
 * then ring, which wakes only a sleeper and at most once per sleep. Because all of it is
 * sequentially consistent, either the sleeper's last look sees the message or the waker sees the 1.
 * A lost wake-up costs one fallback period, never a hang. Only the scheduler may block
 * (`BlockingBell`); threads with an event loop use `EventLoopBell`.
 */
const asleep = 1;
const awake = 0;

/** Wakes the owner of the bell if it sleeps. Call after publishing. */
export function ring(words: Int32Array, bell: number): void {
  if (Atomics.load(words, bell) !== asleep) return;
  if (Atomics.compareExchange(words, bell, asleep, awake) !== asleep) return;
  Atomics.notify(words, bell, 1);
}

/** The scheduler's bell. */
export class BlockingBell {
  readonly #words: Int32Array;
  readonly #bell: number;

  constructor(words: Int32Array, bell: number) {
    this.#words = words;
    this.#bell = bell;
  }

  /** Announces sleep. Look at every ring once more before sleep(). */
  arm(): void {
    Atomics.store(this.#words, this.#bell, asleep);
  }

  /** The last look found work. */
  disarm(): void {
    Atomics.store(this.#words, this.#bell, awake);
  }

  /** Blocks until the bell rings or the time is over. Returns at once when it rang since arm(). */
  sleep(timeoutMs: number): void {
    Atomics.wait(this.#words, this.#bell, asleep, timeoutMs);
    this.disarm();
  }
}

/** How long a lost wake-up may cost an event-loop thread. */
const fallbackMs = 25;

/**
 * The bell of a thread with an event loop: calls `drain` whenever it rings, and at least every
 * fallback period. `drain` handles what is there, within a budget of its own, and returns whether
 * anything is left; what is left is taken up after the loop has served its sockets.
 */
export class EventLoopBell {
  readonly #words: Int32Array;
  readonly #bell: number;
  readonly #drain: () => boolean;
  readonly #fallback: NodeJS.Timeout;
  /** At most one waiter is outstanding: waiters that are never notified are never freed. */
  #waiting = false;
  #scheduled = false;
  #stopped = false;
  readonly #onRing = (): void => {
    this.#waiting = false;
    this.#pump();
  };
  readonly #onImmediate = (): void => {
    this.#scheduled = false;
    this.#pump();
  };

  constructor(words: Int32Array, bell: number, drain: () => boolean) {
    this.#words = words;
    this.#bell = bell;
    this.#drain = drain;
    this.#fallback = setInterval(() => this.#pump(), fallbackMs);
  }

  /** First look; from here on the bell is answered. */
  start(): void {
    this.#pump();
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#fallback);
    Atomics.notify(this.#words, this.#bell); // a waiter that nobody notifies is never freed
  }

  #pump(): void {
    if (this.#stopped || this.#scheduled) return;
    if (!this.#drain()) {
      Atomics.store(this.#words, this.#bell, asleep);
      // The last look: what was published before the store above is seen here.
      if (!this.#drain()) {
        this.#wait();
        return;
      }
      Atomics.store(this.#words, this.#bell, awake);
    }
    this.#scheduled = true;
    setImmediate(this.#onImmediate);
  }

  #wait(): void {
    if (this.#waiting) return; // the outstanding waiter answers the bell just armed
    const wait = Atomics.waitAsync(this.#words, this.#bell, asleep);
    if (!wait.async) {
      this.#scheduled = true; // it rang between the last look and here
      setImmediate(this.#onImmediate);
      return;
    }
    this.#waiting = true;
    wait.value.then(this.#onRing);
  }
}
