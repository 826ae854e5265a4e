/**
 * Runs a program of the shipped source as far as its next access to shared memory.
 *
 * While a program runs, `globalThis.Atomics`, `Int32Array` and `Uint8Array` are replaced, so that every
 * access to a tracked region is an `Op`. A program is a pure function of the results of its ops: it is
 * run again from its start with the log of results and stops at the first op beyond the log. So no
 * generator and no copy of the source is needed, and nothing is written twice. The stamp line of a
 * region never changes and is read without an op.
 */
export const OpKind = {
  load: 0,
  store: 1,
  compareExchange: 2,
  notify: 3,
  /** First half of a wait: 1 when the word differs, else the thread is a waiter (0). */
  register: 4,
  /** Second half: possible once notified (0), or timed out when `a` is 1 (2). */
  awaken: 5,
  /** `a` alternatives. */
  choose: 6,
  plainRead: 7,
  plainWrite: 8,
  plainRead8: 9,
  plainWrite8: 10,
  /** A poll failed: back to the last mark. */
  retry: 11,
  done: 12,
  fail: 13,
  add: 14,
} as const;

/** One access. `at` is a word, for the byte kinds a byte; `a` and `b` are its operands. */
export interface Op {
  readonly kind: number;
  readonly at: number;
  readonly a: number;
  readonly b: number;
  readonly text?: string;
}

export const isPlain = (op: Op): boolean =>
  op.kind >= OpKind.plainRead && op.kind <= OpKind.plainWrite8;
/** An atomic on a word, notify and waits aside. */
export const isWord = (op: Op): boolean =>
  op.kind <= OpKind.compareExchange || op.kind === OpKind.add;
export const isByte = (op: Op): boolean =>
  op.kind === OpKind.plainRead8 || op.kind === OpKind.plainWrite8;
export const wordOf = (op: Op): number => (isByte(op) ? op.at >> 2 : op.at);

export interface ThreadApi {
  /** A place to which retry() returns; its notes are all that the thread knows here. */
  mark(...notes: number[]): void;
  /** A place to which retry() returns; what the thread knows here depends on its whole past. */
  checkpoint(...notes: number[]): void;
  /** Gives up a poll that found nothing. */
  retry(): never;
  /** A choice of the environment: 0 to alternatives - 1. */
  choose(alternatives: number): number;
  /** Whether thread `index` has stopped for ever. */
  isDead(index: number): boolean;
  check(condition: boolean, message: string): void;
  /** Blocks until the waiter of Atomics.waitAsync was notified. */
  awaitNotified(): void;
  /** Whether a blocking wait may also end by its time limit. */
  mayTimeOut: boolean;
  /** Calls of Atomics.notify so far. */
  readonly notifies: number;
}

export type Run = (thread: ThreadApi) => void;

/** Where tracked regions lie in the one numbering of words, and the words of the model itself. */
export interface Space {
  baseOf(region: SharedArrayBuffer): number | undefined;
  initial(word: number): number;
  deadWord(thread: number): number;
}

export interface Stop {
  readonly op: Op;
  /** Log length at the last mark, its notes, and whether they say everything. */
  readonly markAt: number;
  readonly notes: readonly number[];
  readonly complete: boolean;
}

const headerWords = 32;
const real = { Atomics, Int32Array, Uint8Array };
type Tracked = { readonly base: number };
const trackedArrays = new WeakMap<object, Tracked>();

class Pause {
  op: Op = { kind: OpKind.done, at: 0, a: 0, b: 0 };
}
const pause = new Pause();

class Execution implements ThreadApi {
  mayTimeOut = false;
  notifies = 0;
  markAt = 0;
  notes: readonly number[] = [];
  complete = true;
  #cursor = 0;
  readonly #log: readonly number[];
  readonly #space: Space;

  constructor(log: readonly number[], space: Space) {
    this.#log = log;
    this.#space = space;
  }

  perform(kind: number, at: number, a = 0, b = 0): number {
    const cursor = this.#cursor++;
    if (cursor < this.#log.length) return this.#log[cursor]!;
    pause.op = { kind, at, a, b };
    throw pause;
  }

  /** Word number of element `index` of a tracked array. */
  word(array: unknown, index: number): number {
    const tracked = trackedArrays.get(array as object);
    if (tracked === undefined) throw new Error('an atomic on memory that is not tracked');
    return tracked.base + index;
  }

  get space(): Space {
    return this.#space;
  }

  mark(...notes: number[]): void {
    this.#mark(notes, true);
  }
  checkpoint(...notes: number[]): void {
    this.#mark(notes, false);
  }
  #mark(notes: readonly number[], complete: boolean): void {
    this.markAt = this.#cursor;
    this.notes = notes;
    this.complete = complete;
  }
  retry(): never {
    this.perform(OpKind.retry, 0);
    throw new Error('a log never passes a retry');
  }
  choose(alternatives: number): number {
    return this.perform(OpKind.choose, 0, alternatives);
  }
  isDead(index: number): boolean {
    return this.perform(OpKind.load, this.#space.deadWord(index)) === 1;
  }
  check(condition: boolean, message: string): void {
    if (!condition) throw new Error(message);
  }
  awaitNotified(): void {
    this.perform(OpKind.awaken, 0);
  }
}

let current: Execution | undefined;

const fakeAtomics = {
  load: (array: unknown, index: number) =>
    current!.perform(OpKind.load, current!.word(array, index)),
  store(array: unknown, index: number, value: number): number {
    current!.perform(OpKind.store, current!.word(array, index), value | 0);
    return value;
  },
  compareExchange: (array: unknown, index: number, expected: number, value: number) =>
    current!.perform(OpKind.compareExchange, current!.word(array, index), expected | 0, value | 0),
  add: (array: unknown, index: number, value: number) =>
    current!.perform(OpKind.add, current!.word(array, index), value | 0),
  notify(array: unknown, index: number, count = 64): number {
    const run = current!;
    run.notifies++;
    return run.perform(OpKind.notify, run.word(array, index), count);
  },
  wait(array: unknown, index: number, expected: number): string {
    const run = current!;
    const at = run.word(array, index);
    if (run.perform(OpKind.register, at, expected | 0) === 1) return 'not-equal';
    return run.perform(OpKind.awaken, at, run.mayTimeOut ? 1 : 0) === 0 ? 'ok' : 'timed-out';
  },
  waitAsync(array: unknown, index: number, expected: number): object {
    const run = current!;
    if (run.perform(OpKind.register, run.word(array, index), expected | 0) === 1) {
      return { async: false, value: 'not-equal' };
    }
    // biome-ignore lint/suspicious/noThenProperty: the source calls then() on the promise of waitAsync.
    const value = { then: (callback: () => void) => asyncWaiters.set(run, callback) };
    return { async: true, value };
  },
};

/** The callback that waits for the notification of waitAsync, per execution. */
const asyncWaiters = new WeakMap<object, () => void>();
export function takeAsyncWaiter(thread: ThreadApi): (() => void) | undefined {
  const callback = asyncWaiters.get(thread);
  asyncWaiters.delete(thread);
  return callback;
}

/** An array class whose views of tracked regions are proxies: each element access is an op. */
function trackingClass<A extends typeof Int32Array | typeof Uint8Array>(
  original: A,
  read: number,
  write: number,
): A {
  return new Proxy(original, {
    construct(target, [buffer, byteOffset = 0, length]: [SharedArrayBuffer, number?, number?]) {
      const array = Reflect.construct(target, [buffer, byteOffset, length]);
      const region = current?.space.baseOf(buffer);
      if (region === undefined) return array;
      const each = target.BYTES_PER_ELEMENT;
      const base = (region * 4 + byteOffset) / each;
      const isHeader = (index: number) => index * each + byteOffset < headerWords * 4;
      const proxy = new Proxy(array, {
        get(_, key) {
          const index = typeof key === 'string' ? Number(key) : Number.NaN;
          if (!Number.isInteger(index)) return Reflect.get(array, key, array);
          if (isHeader(index)) return current!.space.initial(base + index);
          return current!.perform(read, base + index);
        },
        set(_, key, value: number) {
          current!.perform(write, base + Number(key), each === 1 ? value & 255 : value | 0);
          return true;
        },
      });
      trackedArrays.set(proxy, { base });
      return proxy;
    },
  });
}

const fakeInt32Array = trackingClass(Int32Array, OpKind.plainRead, OpKind.plainWrite);
const fakeUint8Array = trackingClass(Uint8Array, OpKind.plainRead8, OpKind.plainWrite8);

/** Runs `use` with other globals, such as the timers of an event loop that the search turns itself. */
export function withGlobals(others: object, use: () => void): void {
  const kept = Object.fromEntries(
    Object.keys(others).map((name) => [name, Reflect.get(globalThis, name)]),
  );
  Object.assign(globalThis, others);
  try {
    use();
  } finally {
    Object.assign(globalThis, kept);
  }
}

/** Replays `log` and says what the program does next. */
export function execute(run: Run, log: readonly number[], space: Space): Stop {
  const execution = new Execution(log, space);
  current = execution;
  Object.assign(globalThis, {
    Atomics: fakeAtomics,
    Int32Array: fakeInt32Array,
    Uint8Array: fakeUint8Array,
  });
  let op: Op = { kind: OpKind.done, at: 0, a: 0, b: 0 };
  try {
    run(execution);
  } catch (error) {
    if (error === pause) op = pause.op;
    else op = { kind: OpKind.fail, at: 0, a: 0, b: 0, text: (error as Error).message };
  } finally {
    Object.assign(globalThis, real);
    current = undefined;
  }
  const { markAt, notes, complete } = execution;
  return { op, markAt, notes, complete };
}
