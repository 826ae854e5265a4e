/**
 * The threads of a search as automata, discovered by running their programs (virtual-thread.ts).
 *
 * A node is a local state of one thread: the log that leads to it and the op that follows. Each node is
 * executed once; the search then walks a table. Histories that meet at a mark with the same notes are
 * one node. That is a claim of the program, so it is checked: other histories that led to a mark are
 * carried along as witnesses, and each must do the very ops that the first one does.
 */
import { execute, type Op, OpKind, type Run, type Space, type Stop } from './virtual-thread.ts';

export interface Node {
  readonly id: number;
  readonly op: Op;
  readonly log: readonly number[];
  /** Where a retry returns to. */
  readonly mark: Node;
  readonly notes: readonly number[];
  readonly children: Map<number, Node>;
  readonly witnesses: (readonly number[])[];
}

/** A program that goes on for longer than this spins. */
const logMax = 120;
const witnessesMax = 2;

const sameOp = (a: Op, b: Op): boolean =>
  a.kind === b.kind && a.at === b.at && a.a === b.a && a.b === b.b && a.text === b.text;

export class Automaton {
  readonly root: Node;
  readonly #run: Run;
  readonly #space: Space;
  readonly #loopWord: number | undefined;
  readonly #nodes: Node[];
  readonly #marks = new Map<string, Node>();

  /** `nodes` is shared by the automata of a search: the index of a node is its id. */
  constructor(run: Run, space: Space, nodes: Node[], loopWord: number | undefined) {
    this.#run = run;
    this.#loopWord = loopWord;
    this.#space = space;
    this.#nodes = nodes;
    this.root = this.#resolve([], undefined);
  }

  /** The node after `node`, whose op returned `result`. */
  next(node: Node, result: number): Node {
    const known = node.children.get(result);
    if (known !== undefined) return known;
    const child = this.#resolve([...node.log, result], node);
    node.children.set(result, child);
    for (const witness of node.witnesses) {
      const log = [...witness, result];
      this.#compare(child, execute(this.#run, log, this.#space));
      if (child.witnesses.length < witnessesMax) child.witnesses.push(log);
    }
    return child;
  }

  #resolve(log: readonly number[], parent: Node | undefined): Node {
    const stop = this.#execute(log);
    const { op } = stop;
    const isLoopHead = op.kind === OpKind.load && op.at === this.#loopWord;
    const isMark = stop.markAt === log.length || isLoopHead;
    const key = isMark && stop.complete ? stop.notes.join() : undefined;
    const merged = key === undefined ? undefined : this.#marks.get(key);
    if (merged !== undefined) {
      this.#compare(merged, stop);
      if (merged.witnesses.length < witnessesMax) merged.witnesses.push(log);
      return merged;
    }
    const node: { mark?: Node } & Omit<Node, 'mark'> = {
      id: this.#nodes.length,
      op: stop.op,
      log,
      notes: stop.notes,
      children: new Map(),
      witnesses: [],
    };
    if (isMark || parent === undefined) node.mark = node as Node;
    else node.mark = stop.markAt === parent.log.length ? parent : parent.mark;
    this.#nodes.push(node as Node);
    if (key !== undefined) this.#marks.set(key, node as Node);
    return node as Node;
  }

  #execute(log: readonly number[]): Stop {
    const stop = execute(this.#run, log, this.#space);
    if (log.length < logMax) return stop;
    return { ...stop, op: { kind: OpKind.fail, at: 0, a: 0, b: 0, text: 'runs on and on' } };
  }

  #compare(node: Node, stop: Stop): void {
    if (!sameOp(node.op, stop.op)) throw new Error('the notes of a mark do not say everything');
  }
}
