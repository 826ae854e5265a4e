/**
 * The table of stored responses in use (stored-responses.layout.ts). Acceptors and forwarders; nobody waits:
 * who finds an entry taken goes on without it.
 */
import { assert } from '../lib/assert.ts';
import { responseKeyWords } from '../protocol/response-key.ts';
import { responseWays, StoredResponsesLayout } from './stored-responses.layout.ts';

/** Who keeps a response, and what it was asked for as. A record that its owner reuses. */
export interface Keeper {
  row: number;
  epoch: number;
  identity: number;
  model: number;
  /** Adapter of the model that answered; -1: not known. */
  adapter: number;
  /** Hash of the name it was asked for by. */
  name: number;
}

export const createKeeper = (): Keeper => ({
  ...{ row: -1, epoch: 0, identity: 0, model: -1, adapter: -1, name: 0 },
});

/** What became of a new entry: in place of nothing or of itself; of another one; there was no room. */
export const Kept = { fresh: 0, evicting: 1, not: 2 } as const;
export type Kept = (typeof Kept)[keyof typeof Kept];

/** Entries that other threads may take while one looks for a place. */
const attemptsMax = 4;

export const responseCounts = (entries: number) => ({ entry: entries });

export function createStoredResponses(entries: number): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(entries)), 'the number of entries is a power of two');
  assert(entries >= responseWays, 'there is a set');
  return StoredResponsesLayout.create(responseCounts(entries));
}

type Places = ReturnType<typeof StoredResponsesLayout.place>['at'];

export class StoredResponses {
  readonly #words: Int32Array;
  readonly #clock: number;
  readonly #base: number;
  readonly #stride: number;
  readonly #at: Places['entry']['at'];
  readonly #setMask: number;
  /** Of the place that #placeFor() found: its stamp, and whether another response is given up for it. */
  #stamp = 0;
  #isEvicting = false;

  constructor(region: SharedArrayBuffer, entries: number) {
    const { at } = StoredResponsesLayout.attach(region, responseCounts(entries));
    this.#words = new Int32Array(region);
    this.#clock = at.clock;
    this.#base = at.entry.base;
    this.#stride = at.entry.stride;
    this.#at = at.entry.at;
    this.#setMask = entries / responseWays - 1;
  }

  /** Fills `keeper` with who keeps the response of the key. False: nobody is known to. */
  find(key: Int32Array, keeper: Keeper): boolean {
    const entry = this.#find(key, keeper);
    if (entry < 0) return false;
    this.#touch(entry);
    return true;
  }

  keep(key: Int32Array, keeper: Keeper): Kept {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const entry = this.#placeFor(key);
      if (entry < 0) return Kept.not;
      const stamp = this.#stamp;
      if (!this.#take(entry, stamp)) continue;
      this.#write(entry, key, keeper);
      this.#giveBack(entry, stamp);
      this.#touch(entry);
      return this.#isEvicting ? Kept.evicting : Kept.fresh;
    }
    return Kept.not;
  }

  /** The response is no more. */
  forget(key: Int32Array): void {
    const keeper = createKeeper();
    const entry = this.#find(key, keeper);
    if (entry < 0) return;
    const stamp = Atomics.load(this.#words, entry);
    // Who takes it in between writes another response in its place.
    if (!this.#isOf(entry, key) || !this.#take(entry, stamp)) return;
    this.#write(entry, noKey, nobody);
    this.#giveBack(entry, stamp);
  }

  /** The entry of the key, as it was while its words were read; -1: there is none. */
  #find(key: Int32Array, keeper: Keeper): number {
    const words = this.#words;
    const at = this.#at;
    for (let way = 0; way < responseWays; way++) {
      const entry = this.#entryOf(key, way);
      const stamp = Atomics.load(words, entry);
      if (stamp === 0 || (stamp & 1) !== 0 || !this.#isOf(entry, key)) continue;
      keeper.row = Atomics.load(words, entry + at.row);
      keeper.epoch = Atomics.load(words, entry + at.epoch);
      keeper.identity = Atomics.load(words, entry + at.identity);
      keeper.model = Atomics.load(words, entry + at.model);
      keeper.adapter = Atomics.load(words, entry + at.adapter);
      keeper.name = Atomics.load(words, entry + at.name);
      // Pairs with the compare-exchange of #take(): another stamp, and somebody has written since.
      if (keeper.row >= 0 && Atomics.load(words, entry) === stamp) return entry;
    }
    return -1;
  }

  /**
   * That of the key, else an empty one, else the least recently used; -1: all are taken. With the stamp it had
   * when it was looked at: whoever writes it afterwards has it, and another is looked for.
   */
  #placeFor(key: Int32Array): number {
    const now = Atomics.load(this.#words, this.#clock);
    let place = -1;
    let oldest = -1;
    this.#isEvicting = false;
    for (let way = 0; way < responseWays; way++) {
      const entry = this.#entryOf(key, way);
      const stamp = Atomics.load(this.#words, entry);
      if ((stamp & 1) !== 0) continue;
      const isOf = this.#isOf(entry, key);
      const isInUse = stamp !== 0 && Atomics.load(this.#words, entry + this.#at.row) >= 0;
      const used = Atomics.load(this.#words, entry + this.#at.used);
      const age = isInUse ? (now - used) >>> 0 : Number.POSITIVE_INFINITY;
      if (!isOf && age <= oldest) continue;
      oldest = age;
      place = entry;
      this.#stamp = stamp;
      this.#isEvicting = isInUse && !isOf;
      if (isOf) break;
    }
    return place;
  }

  #isOf(entry: number, key: Int32Array): boolean {
    for (let i = 0; i < responseKeyWords; i++) {
      if (Atomics.load(this.#words, entry + this.#at.key + i) !== key[i]) return false;
    }
    return true;
  }

  #write(entry: number, key: Int32Array, keeper: Keeper): void {
    const words = this.#words;
    const at = this.#at;
    for (let i = 0; i < responseKeyWords; i++) {
      Atomics.store(words, entry + at.key + i, key[i] as number);
    }
    Atomics.store(words, entry + at.row, keeper.row);
    Atomics.store(words, entry + at.epoch, keeper.epoch);
    Atomics.store(words, entry + at.identity, keeper.identity);
    Atomics.store(words, entry + at.model, keeper.model);
    Atomics.store(words, entry + at.adapter, keeper.adapter);
    Atomics.store(words, entry + at.name, keeper.name);
  }

  #take(entry: number, stamp: number): boolean {
    if ((stamp & 1) !== 0) return false;
    return Atomics.compareExchange(this.#words, entry, stamp, stamp + 1) === stamp;
  }

  /** Publishes the words. 0 stands for an entry that was never used, also after the stamp has wrapped. */
  #giveBack(entry: number, stamp: number): void {
    Atomics.store(this.#words, entry, (stamp + 2) | 0 || 2);
  }

  #touch(entry: number): void {
    const now = Atomics.add(this.#words, this.#clock, 1);
    Atomics.store(this.#words, entry + this.#at.used, now);
  }

  #entryOf(key: Int32Array, way: number): number {
    const set = (key[0] as number) & this.#setMask;
    return this.#base + (set * responseWays + way) * this.#stride;
  }
}

const noKey = new Int32Array(responseKeyWords);
const nobody: Keeper = Object.freeze(createKeeper());
