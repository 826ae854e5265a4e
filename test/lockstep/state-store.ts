/**
 * The visited states of a search: packed vectors, a hash table over them, their edges and parents.
 *
 * A vector is the difference of each used word to its initial value, then two numbers per thread.
 * Words get their place when they are first written, so the states before agree that it is 0.
 */
const wordsMax = 48;

export class StateStore {
  count = 0;
  edges = 0;
  readonly #width: number;
  readonly #numbers: number;
  readonly #statesMax: number;
  readonly #placeOf = new Map<number, number>();
  readonly #words: number[] = [];
  #vectors = new Int32Array(1 << 16);
  #table = new Int32Array(1 << 12).fill(-1);
  #parents = new Int32Array(1 << 10);
  #actions = new Int32Array(1 << 10);
  #edgeStart = new Int32Array(1 << 10);
  #edgeTo = new Int32Array(1 << 12);
  readonly #scratch: Int32Array;

  constructor(numbers: number, statesMax: number) {
    this.#numbers = numbers;
    this.#width = wordsMax + numbers;
    this.#statesMax = statesMax;
    this.#scratch = new Int32Array(this.#width);
  }

  /** Gives the word a place in the vectors. */
  uses(word: number): void {
    if (this.#placeOf.has(word)) return;
    if (this.#words.length === wordsMax) throw new Error('more words change than a vector holds');
    this.#placeOf.set(word, this.#words.push(word) - 1);
  }

  /** The successors of the next state follow. */
  beginEdges(): void {
    const state = this.#expanded++;
    this.#edgeStart = grown(this.#edgeStart, state + 2);
    this.#edgeStart[state] = this.edges;
    this.#edgeStart[state + 1] = this.edges;
  }
  #expanded = 0;

  keep(
    memory: Int32Array,
    initial: Int32Array,
    parent: number,
    action: number,
    numberOf: (thread: number, slot: number) => number,
  ): void {
    const vector = this.#scratch;
    for (let i = 0; i < this.#words.length; i++) {
      vector[i] = memory[this.#words[i]!]! - initial[this.#words[i]!]!;
    }
    for (let i = 0; i < this.#numbers; i++) {
      vector[wordsMax + i] = numberOf(i >> 1, i & 1);
    }
    const state = this.#find(vector, parent, action);
    if (parent < 0) return;
    this.#edgeTo = grown(this.#edgeTo, this.edges + 1);
    this.#edgeTo[this.edges++] = state;
    this.#edgeStart[parent + 1] = this.edges;
  }

  load(
    state: number,
    memory: Int32Array,
    initial: Int32Array,
    set: (thread: number, first: number, second: number) => void,
  ): void {
    const at = state * this.#width;
    for (let i = 0; i < this.#words.length; i++) {
      memory[this.#words[i]!] = this.#vectors[at + i]! + initial[this.#words[i]!]!;
    }
    for (let i = 0; i < this.#numbers; i += 2) {
      const number = at + wordsMax + i;
      set(i >> 1, this.#vectors[number]!, this.#vectors[number + 1]!);
    }
  }

  /** The shortest way to a state: the states on it and what was done in each. */
  path(state: number): [number, number][] {
    const steps: [number, number][] = [];
    for (let at = state; this.#parents[at]! >= 0; at = this.#parents[at]!) {
      steps.unshift([this.#parents[at]!, this.#actions[at]!]);
    }
    return steps;
  }

  /** The states from which none of `targets` can be reached. */
  cannotReach(targets: readonly number[]): number[] {
    const incoming = new Int32Array(this.count + 1);
    for (let e = 0; e < this.edges; e++) incoming[this.#edgeTo[e]! + 1]! += 1;
    for (let s = 0; s < this.count; s++) incoming[s + 1]! += incoming[s]!;
    const from = new Int32Array(this.edges);
    const fill = incoming.slice();
    for (let s = 0; s < this.count; s++) {
      for (let e = this.#edgeStart[s]!; e < this.#edgeStart[s + 1]!; e++) {
        from[fill[this.#edgeTo[e]!]!++] = s;
      }
    }
    const reaches = new Uint8Array(this.count);
    const work = [...targets];
    for (const target of work) reaches[target] = 1;
    for (let state = work.pop(); state !== undefined; state = work.pop()) {
      for (let e = incoming[state]!; e < incoming[state + 1]!; e++) {
        if (reaches[from[e]!]) continue;
        reaches[from[e]!] = 1;
        work.push(from[e]!);
      }
    }
    const without: number[] = [];
    for (let s = 0; s < this.count; s++) if (!reaches[s]) without.push(s);
    return without;
  }

  #find(vector: Int32Array, parent: number, action: number): number {
    if (this.count * 2 > this.#table.length) this.#rehash();
    const mask = this.#table.length - 1;
    for (let probe = hashOf(vector, 0, this.#width); ; probe++) {
      const state = this.#table[probe & mask]!;
      if (state === -1) {
        this.#table[probe & mask] = this.count;
        return this.#add(vector, parent, action);
      }
      if (this.#isAt(state, vector)) return state;
    }
  }

  #add(vector: Int32Array, parent: number, action: number): number {
    if (this.count === this.#statesMax) throw new Error(`more than ${this.#statesMax} states`);
    const state = this.count++;
    this.#vectors = grown(this.#vectors, this.count * this.#width);
    this.#vectors.set(vector, state * this.#width);
    this.#parents = grown(this.#parents, this.count);
    this.#actions = grown(this.#actions, this.count);
    this.#parents[state] = parent;
    this.#actions[state] = action;
    return state;
  }

  #isAt(state: number, vector: Int32Array): boolean {
    const at = state * this.#width;
    for (let i = 0; i < this.#width; i++) if (this.#vectors[at + i] !== vector[i]) return false;
    return true;
  }

  #rehash(): void {
    this.#table = new Int32Array(this.#table.length * 4).fill(-1);
    const mask = this.#table.length - 1;
    for (let state = 0; state < this.count; state++) {
      let probe = hashOf(this.#vectors, state * this.#width, this.#width);
      while (this.#table[probe & mask] !== -1) probe++;
      this.#table[probe & mask] = state;
    }
  }
}

function hashOf(vector: Int32Array, at: number, length: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < length; i++) {
    hash = Math.imul(hash ^ vector[at + i]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash >>> 1;
}

function grown(array: Int32Array, length: number): Int32Array<ArrayBuffer> {
  if (length <= array.length) return array as Int32Array<ArrayBuffer>;
  const larger = new Int32Array(Math.max(length, array.length * 2));
  larger.set(array);
  return larger;
}
