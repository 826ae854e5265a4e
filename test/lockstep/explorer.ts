/**
 * Explicit-state search over the interleavings of threads that run the shipped source.
 *
 * A step is one atomic op and the plain accesses after it. That is enough when there is no data race,
 * and a race is a violation: plain accesses stay open until their thread's next atomic, and nobody else
 * may touch those words meanwhile. An op on a word that one thread alone ever touches commutes with
 * all others and is merged into the step before; a search that meets a second thread on such a word
 * starts again with that word shared. States are kept whole (memory, node and open accesses of each
 * thread), breadth first, so a counterexample is a shortest one. `stuck` counts the states from which
 * no end can be reached: deadlock, lost wake-up and lost message alike.
 */
import { Automaton, type Node } from './automaton.ts';
import { StateStore } from './state-store.ts';
import {
  isByte,
  isPlain,
  isWord,
  type Op,
  OpKind,
  type Run,
  type Space,
  wordOf,
} from './virtual-thread.ts';

export interface ThreadSpec {
  readonly name: string;
  readonly run: Run;
  /** Whether it may stop for ever at any step. */
  readonly mayCrash?: boolean;
  /**
   * A load of this word finds the thread as it was at its last mark: the head of a retry loop inside
   * the source. Checked as the notes of a mark are.
   */
  readonly loopsAt?: { readonly region: number; readonly index: number };
  /** It serves the others and need not come to an end. */
  readonly daemon?: boolean;
}

export interface View {
  word(region: number, index: number): number;
  done(thread: number): boolean;
  dead(thread: number): boolean;
  /** Notes of the last mark or checkpoint of a thread. */
  notes(thread: number): readonly number[];
}

export interface World {
  readonly regions: readonly SharedArrayBuffer[];
  readonly threads: readonly ThreadSpec[];
  /** How many threads may crash in one run. */
  readonly crashes?: number;
  /** An end beside all threads being done or dead, daemons aside. */
  ended?(view: View): boolean;
  /** Throw when the rule does not hold: in every state, and in every end. */
  always?(view: View): void;
  atEnd?(view: View): void;
}

export interface Report {
  readonly states: number;
  readonly transitions: number;
  readonly ends: number;
  readonly stuck: number;
  /** How to get to the first stuck state. */
  readonly stuckTrace: string;
}

class Violation extends Error {
  override name = 'Violation';
}

/** A word that was taken for private has a second thread. */
class SharedWord extends Error {}

const notified = -1;

export function explore(world: World, statesMax = 4_000_000): Report {
  const shared = new Set<number>();
  for (;;) {
    try {
      return new Search(world, shared, statesMax).run();
    } catch (error) {
      if (!(error instanceof SharedWord)) throw error;
    }
  }
}

class Search implements Space, View {
  readonly #world: World;
  readonly #shared: Set<number>;
  readonly #bases = new Map<SharedArrayBuffer, number>();
  readonly #regionBase: number[] = [];
  readonly #initial: Int32Array;
  readonly #memory: Int32Array;
  /** First of the model's own words: dead flags, waiters, crashes so far. */
  readonly #model: number;
  readonly #nodes: Node[] = [];
  readonly #automata: Automaton[];
  readonly #at: Node[] = [];
  /** Per thread: word -> whether it was written, since the thread's last atomic. */
  readonly #open: Map<number, boolean>[];
  readonly #openSets: Map<number, boolean>[] = [new Map()];
  readonly #openByKey = new Map<string, Map<number, boolean>>();
  readonly #openIds = new Map<Map<number, boolean>, number>();
  readonly #touchedBy: Int32Array;
  readonly #states: StateStore;

  constructor(world: World, shared: Set<number>, statesMax: number) {
    this.#world = world;
    this.#shared = shared;
    const count = world.threads.length;
    let next = 0;
    for (const region of world.regions) {
      this.#bases.set(region, next);
      this.#regionBase.push(next);
      next += region.byteLength / 4;
    }
    this.#model = next;
    this.#initial = new Int32Array(next + 2 * count + 1);
    for (const region of world.regions) {
      this.#initial.set(new Int32Array(region), this.#bases.get(region)!);
    }
    this.#memory = this.#initial.slice();
    this.#touchedBy = new Int32Array(this.#initial.length).fill(-1);
    this.#open = world.threads.map(() => this.#openSets[0]!);
    this.#automata = world.threads.map(({ run, loopsAt }) => {
      const loopWord = loopsAt && this.#regionBase[loopsAt.region]! + loopsAt.index;
      return new Automaton(run, this, this.#nodes, loopWord);
    });
    for (let t = 0; t < count; t++) this.#shared.add(this.deadWord(t));
    this.#states = new StateStore(2 * count, statesMax);
  }

  baseOf(region: SharedArrayBuffer): number | undefined {
    return this.#bases.get(region);
  }
  initial(word: number): number {
    return this.#initial[word]!;
  }
  deadWord(thread: number): number {
    return this.#model + thread;
  }
  #waiterWord(thread: number): number {
    return this.#model + this.#world.threads.length + thread;
  }
  get #crashWord(): number {
    return this.#initial.length - 1;
  }
  word(region: number, index: number): number {
    return this.#memory[this.#regionBase[region]! + index]!;
  }
  done(thread: number): boolean {
    return this.#at[thread]!.op.kind === OpKind.done;
  }
  dead(thread: number): boolean {
    return this.#memory[this.deadWord(thread)] === 1;
  }
  notes(thread: number): readonly number[] {
    return this.#at[thread]!.notes;
  }

  run(): Report {
    const ends: number[] = [];
    for (const [t, automaton] of this.#automata.entries()) {
      this.#at[t] = automaton.root;
      this.#settle(t);
    }
    this.#keep(-1, 0);
    for (let state = 0; state < this.#states.count; state++) {
      this.#load(state);
      this.#judge(state, ends);
      this.#states.beginEdges();
      for (let t = 0; t < this.#at.length; t++) {
        if (this.dead(t) || this.done(t)) continue;
        const { op } = this.#at[t]!;
        const alternatives = op.kind === OpKind.choose ? op.a : 1;
        for (let choice = 0; choice < alternatives; choice++) this.#step(state, t, choice);
        this.#crash(state, t);
      }
    }
    const stuck = this.#states.cannotReach(ends);
    return {
      states: this.#states.count,
      transitions: this.#states.edges,
      ends: ends.length,
      stuck: stuck.length,
      stuckTrace: stuck.length === 0 ? '' : this.#trace(stuck[0]!, 'stuck'),
    };
  }

  #judge(state: number, ends: number[]): void {
    const { threads, ended, always, atEnd } = this.#world;
    try {
      always?.(this);
      const isEnd =
        ended?.(this) ?? threads.every(({ daemon }, t) => daemon || this.done(t) || this.dead(t));
      if (!isEnd) return;
      ends.push(state);
      atEnd?.(this);
    } catch (error) {
      throw new Violation(this.#trace(state, (error as Error).message));
    }
  }

  #step(state: number, thread: number, choice: number): void {
    const node = this.#at[thread]!;
    try {
      if (!this.#isInner(node.op)) {
        const result = this.#perform(thread, node.op, choice);
        if (result === undefined) return;
        this.#open[thread] = this.#openSets[0]!;
        this.#at[thread] = this.#automata[thread]!.next(node, result);
      }
      this.#settle(thread);
    } catch (error) {
      if (error instanceof SharedWord) throw error;
      const { name } = this.#world.threads[thread]!;
      const last = `${name}: ${this.#describe(node.op)}`;
      throw new Violation(`${this.#trace(state, (error as Error).message)}\n  ${last}`);
    }
    this.#keep(state, thread);
    this.#load(state);
  }

  /** An op that nobody else can see: it is part of the step before. */
  #isInner(op: Op): boolean {
    return isPlain(op) || op.kind === OpKind.retry || (isWord(op) && !this.#shared.has(op.at));
  }

  #crash(state: number, thread: number): void {
    const { crashes = 0, threads } = this.#world;
    if (!threads[thread]!.mayCrash || this.#memory[this.#crashWord]! >= crashes) return;
    this.#set(this.#crashWord, this.#memory[this.#crashWord]! + 1);
    this.#set(this.deadWord(thread), 1);
    this.#open[thread] = this.#openSets[0]!;
    this.#at[thread] = this.#at[thread]!.mark;
    this.#keep(state, ~thread);
    this.#load(state);
  }

  /** Does what follows the last atomic: plain accesses, ops on private words, retries. */
  #settle(thread: number): void {
    const open = new Map(this.#open[thread]!);
    const marks: Node[] = [];
    for (;;) {
      const node = this.#at[thread]!;
      const { op } = node;
      if (op.kind === OpKind.fail) throw new Error(op.text);
      if (node.mark === node) {
        if (marks.includes(node)) break; // a poll of what nobody else has touched yet
        marks.push(node);
      }
      if (op.kind === OpKind.retry) {
        this.#at[thread] = node.mark;
        continue;
      }
      let result: number | undefined;
      if (isPlain(op)) {
        result = this.#performPlain(thread, op, open);
      } else if (this.#isInner(op)) {
        this.#touch(op.at, thread);
        result = this.#perform(thread, op, 0);
      } else {
        break;
      }
      this.#at[thread] = this.#automata[thread]!.next(node, result!);
    }
    this.#open[thread] = this.#intern(open);
  }

  #performPlain(thread: number, op: Op, open: Map<number, boolean>): number {
    const isWrite = op.kind === OpKind.plainWrite || op.kind === OpKind.plainWrite8;
    const word = wordOf(op);
    this.#touch(word, thread);
    this.#checkRace(thread, word, isWrite, op);
    open.set(word, isWrite || open.get(word) === true);
    const old = this.#memory[word]!;
    if (!isByte(op)) {
      if (isWrite) this.#set(word, op.a);
      return isWrite ? 0 : old;
    }
    const shift = (op.at & 3) * 8;
    if (isWrite) this.#set(word, (old & ~(255 << shift)) | (op.a << shift));
    return isWrite ? 0 : (old >>> shift) & 255;
  }

  /** Applies an atomic op. Undefined: the thread cannot go on. */
  #perform(thread: number, op: Op, choice: number): number | undefined {
    const memory = this.#memory;
    const old = memory[op.at]!;
    if (isWord(op)) this.#checkRace(thread, op.at, op.kind !== OpKind.load, op);
    switch (op.kind) {
      case OpKind.load:
        return old;
      case OpKind.store:
      case OpKind.add:
        this.#set(op.at, op.kind === OpKind.add ? (old + op.a) | 0 : op.a);
        return op.kind === OpKind.add ? old : op.a;
      case OpKind.compareExchange:
        if (old === op.a) this.#set(op.at, op.b);
        return old;
      case OpKind.notify:
        return this.#notify(op);
      case OpKind.register:
        if (old !== op.a) return 1;
        if (memory[this.#waiterWord(thread)] !== 0) {
          throw new Error('a second waiter of one thread');
        }
        this.#set(this.#waiterWord(thread), op.at + 1);
        return 0;
      case OpKind.awaken: {
        const isNotified = memory[this.#waiterWord(thread)] === notified;
        if (!isNotified && op.a !== 1) return undefined;
        this.#set(this.#waiterWord(thread), 0);
        return isNotified ? 0 : 2;
      }
      case OpKind.choose:
        return choice;
      default:
        throw new Error(`op ${op.kind} is not atomic`);
    }
  }

  #notify(op: Op): number {
    let woken = 0;
    for (let t = 0; t < this.#at.length && woken < op.a; t++) {
      if (this.#memory[this.#waiterWord(t)] !== op.at + 1) continue;
      this.#set(this.#waiterWord(t), notified);
      woken++;
    }
    return woken;
  }

  #touch(word: number, thread: number): void {
    const before = this.#touchedBy[word]!;
    if (before === -1) this.#touchedBy[word] = thread;
    if (before === -1 || before === thread || this.#shared.has(word)) return;
    this.#shared.add(word);
    throw new SharedWord();
  }

  #checkRace(thread: number, word: number, isWrite: boolean, op: Op): void {
    for (let other = 0; other < this.#open.length; other++) {
      if (other === thread || this.#open[other]!.size === 0) continue;
      const theirs = this.#open[other]!.get(word);
      if (theirs === undefined || (!theirs && !isWrite)) continue;
      const { name } = this.#world.threads[thread]!;
      const { name: otherName } = this.#world.threads[other]!;
      throw new Error(`data race: ${name}, ${this.#describe(op)}, with ${otherName}`);
    }
  }

  #set(word: number, value: number): void {
    this.#memory[word] = value;
    this.#states.uses(word);
  }

  #intern(open: Map<number, boolean>): Map<number, boolean> {
    if (open.size === 0) return this.#openSets[0]!;
    const key = [...open].sort((a, b) => a[0] - b[0]).join(';');
    const known = this.#openByKey.get(key);
    if (known !== undefined) return known;
    this.#openByKey.set(key, open);
    this.#openIds.set(open, this.#openSets.push(open) - 1);
    return open;
  }

  #keep(parent: number, action: number): void {
    this.#states.keep(this.#memory, this.#initial, parent, action, (thread, slot) =>
      slot === 0 ? this.#at[thread]!.id : (this.#openIds.get(this.#open[thread]!) ?? 0),
    );
  }

  #load(state: number): void {
    this.#states.load(state, this.#memory, this.#initial, (thread, node, open) => {
      this.#at[thread] = this.#nodes[node]!;
      this.#open[thread] = this.#openSets[open]!;
    });
  }

  #trace(state: number, title: string): string {
    const lines: string[] = [];
    for (const [from, action] of this.#states.path(state)) {
      const thread = action < 0 ? ~action : action;
      this.#load(from);
      const what = `${action < 0 ? 'stops for ever before ' : ''}${this.#describe(this.#at[thread]!.op)}`;
      lines.push(`  ${this.#world.threads[thread]!.name}: ${what}`);
    }
    return `${title}\n${lines.join('\n')}`;
  }

  #describe(op: Op): string {
    const kind = Object.keys(OpKind)[op.kind];
    const word = wordOf(op);
    let region = this.#regionBase.length - 1;
    while (region > 0 && this.#regionBase[region]! > word) region--;
    return `${kind} region ${region} word ${word - this.#regionBase[region]!} (${op.a}, ${op.b})`;
  }
}
