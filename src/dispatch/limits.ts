/**
 * The limits of tenants: what a request takes of them when it arrives, and what comes back when it is
 * over. Pure; the rows are shared with whoever sets and shows the limits (shm/limits.layout.ts).
 *
 * A request takes one request, its prompt tokens as estimated and the output it may have, of its tenant's
 * row and of that of its tenant and model; all of it or, where one of them lacks something, nothing. When
 * it is over it has taken what was used: the rest comes back, or what was not foreseen is taken as well.
 * Whoever is next to have a row begins with full buckets, and what ends behind that is not his.
 */
import { assert } from '../lib/assert.ts';
import { Buckets, bucketKinds } from './buckets.ts';
import { NONE } from './candidates.ts';
import { ASK, Leases, type SharedLimits } from './leases.ts';
import {
  Admission,
  type Limited,
  LimitKind,
  type LimitRows,
  type Questions,
  rowsOfRequest,
} from './limit-rows.ts';

/** How soon a client may ask again that was refused because the store is down. */
const storeDownUs = 1e6;

/** Where a request took: of what is leased, of the buckets here, or of both while the store was late. */
const Source = { leased: 1, here: 2 } as const;

export class Limits {
  /** What the last request that was refused will lack for longest, and for how long. */
  kind: LimitKind = LimitKind.requests;
  waitUs = 0;
  readonly leases: Leases | undefined;
  readonly #rows: LimitRows;
  /** Of each rate, while the store is down. */
  readonly #share: number;
  readonly #buckets: Buckets;
  readonly #rowOf: Int32Array;
  /** The owner of the row when the request took of it. */
  readonly #ownerOf: Int32Array;
  /** What it took; of output by place, because a bucket bounds it. */
  readonly #input: Float64Array;
  readonly #output: Float64Array;
  /** What replicas have counted of it; below 0: an answer of which nobody knows. */
  readonly #usedInput: Float64Array;
  readonly #usedOutput: Float64Array;
  /** 1: content of its answer has begun. */
  readonly #hasBegun: Uint8Array;
  /** What `#cost` is asked for, by kind. */
  readonly #costs = new Float64Array(3);
  /** Source bits. */
  readonly #source: Uint8Array;
  /** What the store is to be asked about, by row and kind. */
  readonly #isShort = new Uint8Array(3 * rowsOfRequest);
  /** Rows of which something was taken or given back while an answer was under way. */
  readonly #unbalanced = new Set<number>();

  /** Nobody holds anything of the rows yet; what is in the buckets stays. */
  constructor(rows: LimitRows, slots: number, shared?: SharedLimits) {
    const { at, words } = rows;
    this.leases = shared && new Leases(shared.rows, shared.ask);
    this.#share = shared?.share ?? 1;
    this.#source = new Uint8Array(slots);
    for (let row = 0; row < rows.count; row++) {
      const running = rows.word(row) + at.running;
      if (words[running] !== 0) words[running] = 0;
    }
    this.#rows = rows;
    this.#buckets = new Buckets(rows);
    this.#rowOf = new Int32Array(rowsOfRequest * slots).fill(NONE);
    this.#ownerOf = new Int32Array(rowsOfRequest * slots);
    this.#input = new Float64Array(slots);
    this.#output = new Float64Array(rowsOfRequest * slots);
    this.#usedInput = new Float64Array(slots);
    this.#usedOutput = new Float64Array(slots);
    this.#hasBegun = new Uint8Array(slots);
  }

  /**
   * Takes what the request needs. Refused: `kind` and `waitUs` say what it lacks, and nothing is taken.
   * `mayAsk`: where it depends on the store, that is to be asked; else the store counts as down.
   */
  admit(
    arrival: Limited,
    inputTokens: number,
    outputTokens: number,
    nowUs: number,
    mayAsk = true,
  ): Admission {
    const { slot, limitRow, limitModelRow } = arrival;
    assert(this.#rowOf[rowsOfRequest * slot] === NONE, 'what it had taken was given back');
    assert(inputTokens >= 0 && outputTokens >= 0, 'a request takes and does not give');
    if (limitRow === NONE && limitModelRow === NONE) return Admission.admitted;
    this.#setCosts(inputTokens, outputTokens);
    this.waitUs = 0;
    const isDown = this.leases !== undefined && (!mayAsk || this.leases.isDown);
    if (isDown && this.#isClosed(limitRow, limitModelRow)) return Admission.refused;
    const leases = isDown ? undefined : this.leases;
    // A store that is late and not down is charged for what goes by the buckets here.
    const isCharged = this.leases !== undefined && !this.leases.isDown;
    const fits = this.#fits(0, limitRow, leases, nowUs);
    if (!this.#fits(1, limitModelRow, leases, nowUs) || !fits) return Admission.refused;
    if (this.#isShort.includes(1)) return Admission.asks;
    for (const row of [limitRow, limitModelRow]) {
      if (row === NONE) continue;
      for (const kind of bucketKinds) {
        const cost = this.#costOf(row, kind, this.#costs[kind] as number);
        this.#correct(row, kind, cost, leases, nowUs);
        if (leases === undefined && isCharged) this.#correct(row, kind, cost, this.leases, nowUs);
      }
    }
    this.hold(arrival, inputTokens, outputTokens, isCharged);
    if (isCharged && leases === undefined) this.#source[slot] = Source.leased | Source.here;
    return Admission.admitted;
  }

  /** Asks the store about what admit() found short, once for each answer; `asked` has the questions. */
  ask({ limitRow, limitModelRow }: Limited, asked: Questions, at: number): void {
    const { leases } = this;
    assert(leases !== undefined, 'limits are shared');
    for (let nth = 0; nth < rowsOfRequest; nth++) {
      const row = nth === 0 ? limitRow : limitModelRow;
      let isAsked = false;
      for (const kind of bucketKinds) {
        if (this.#isShort[3 * nth + kind] === 0) continue;
        const allowed = this.#buckets.allowed(row, kind);
        leases.want(row, kind, this.#costOf(row, kind, this.#costs[kind] as number), allowed);
        isAsked = true;
      }
      if (!isAsked) continue;
      const place = at + nth;
      const isPending =
        asked.rows[place] === row && !leases.isAnswered(row, asked.numbers[place] as number);
      if (isPending) continue;
      asked.rows[place] = row;
      asked.numbers[place] = leases.ask(row);
    }
  }

  /** Looks at the rows whose answer is there, and at those of a request that waits no more. */
  balance(nowUs: number): void {
    const { leases } = this;
    if (leases === undefined || this.#unbalanced.size === 0) return;
    const rows = [...this.#unbalanced];
    this.#unbalanced.clear();
    for (const row of rows) {
      for (const kind of bucketKinds) {
        const allowed = this.#buckets.allowed(row, kind);
        if (allowed.rate === 0 || leases.balance(row, kind, allowed, nowUs)) continue;
        this.#unbalanced.add(row);
        break;
      }
    }
  }

  /** A request waits for the store no more: what was given for it may be too much. */
  decided({ limitRow, limitModelRow }: Limited): void {
    if (limitRow !== NONE) this.#unbalanced.add(limitRow);
    if (limitModelRow !== NONE) this.#unbalanced.add(limitModelRow);
  }

  /** Nobody is known to wait for the rows of the request any more; who does wants again. */
  wantNothing({ limitRow, limitModelRow }: Limited): void {
    if (limitRow !== NONE) this.leases?.wantNothing(limitRow);
    if (limitModelRow !== NONE) this.leases?.wantNothing(limitModelRow);
  }

  /** The request has taken so much, now or under an earlier brain; `isLeased`: of what was leased. */
  hold(
    { slot, limitRow, limitModelRow }: Limited,
    input: number,
    output: number,
    isLeased: boolean,
  ): void {
    this.#hold(slot, 0, limitRow, output);
    this.#hold(slot, 1, limitModelRow, output);
    this.#source[slot] = isLeased && this.leases !== undefined ? Source.leased : Source.here;
    this.#input[slot] = input;
    this.#usedInput[slot] = this.#usedOutput[slot] = 0;
    this.#hasBegun[slot] = 0;
  }

  /** It took of what was leased. */
  isLeased(slot: number): boolean {
    return ((this.#source[slot] as number) & Source.leased) !== 0;
  }

  /** Content of an answer is on its way to the client. */
  began(slot: number): void {
    this.#hasBegun[slot] = 1;
  }

  /**
   * A part of the answer has come, of so many tokens; below 0: nobody has counted them. Of an answer that
   * has not begun, as an error of the replica is, nothing is counted.
   */
  used(slot: number, promptTokens: number, completionTokens: number): void {
    const [input = 0, output = 0] = [this.#usedInput[slot], this.#usedOutput[slot]];
    if (completionTokens < 0 && this.#hasBegun[slot] === 0) return;
    const isKnown = completionTokens >= 0 && output >= 0;
    this.#usedOutput[slot] = isKnown ? output + completionTokens : -1;
    // Of several parts one tells of the prompt.
    if (input <= 0) this.#usedInput[slot] = promptTokens >= 0 ? promptTokens : -1;
  }

  /** Its client left before any of the answer came: what was made of it meanwhile is an estimate. */
  left(slot: number, promptTokens: number, outputTokens: number): void {
    if (this.#hasBegun[slot] === 1) {
      this.lose(slot);
      return;
    }
    const place = rowsOfRequest * slot;
    const most = Math.max(this.#output[place] as number, this.#output[place + 1] as number);
    this.used(slot, promptTokens, Math.min(outputTokens, most));
  }

  /** What became of the request will not be known: what it took stays taken. */
  lose(slot: number): void {
    this.#usedInput[slot] = this.#usedOutput[slot] = -1;
  }

  /**
   * The request is over. What nobody has counted stays taken; `isAsked`: a replica was asked for
   * it. False: it had taken nothing.
   */
  close(slot: number, isAsked: boolean, nowUs: number): boolean {
    let had = false;
    for (let nth = 0; nth < rowsOfRequest; nth++) {
      const place = rowsOfRequest * slot + nth;
      const row = this.#rowOf[place] as number;
      if (row === NONE) continue;
      had = true;
      const { words, at } = this.#rows;
      const word = this.#rows.word(row);
      // Another owner has it meanwhile: what this request took is gone.
      if (words[word + at.usedBy] !== this.#ownerOf[place]) {
        this.#rowOf[place] = NONE;
        continue;
      }
      words[word + at.running] = (words[word + at.running] as number) - 1;
      const source = this.#source[slot] as number;
      if ((source & Source.leased) !== 0) this.#settleAll(place, isAsked, this.leases, nowUs);
      if ((source & Source.here) !== 0) this.#settleAll(place, isAsked, undefined, nowUs);
      this.#rowOf[place] = NONE;
    }
    return had;
  }

  #settleAll(place: number, isAsked: boolean, leases: Leases | undefined, nowUs: number): void {
    const row = this.#rowOf[place] as number;
    const slot = Math.floor(place / rowsOfRequest);
    if (!isAsked) this.#correct(row, LimitKind.requests, -1, leases, nowUs);
    const [usedInput, usedOutput] = [this.#usedInput[slot], this.#usedOutput[slot]];
    this.#settle(row, LimitKind.input, usedInput, this.#input[slot], leases, nowUs);
    this.#settle(row, LimitKind.output, usedOutput, this.#output[place], leases, nowUs);
  }

  #settle(
    row: number,
    kind: LimitKind,
    used: number | undefined,
    took: number | undefined,
    leases: Leases | undefined,
    nowUs: number,
  ): void {
    if (used !== undefined && took !== undefined && used >= 0) {
      this.#correct(row, kind, used - took, leases, nowUs);
    }
  }

  /** Output is set aside, and no more than there can be: what it comes to is settled at the end. */
  #costOf(row: number, kind: LimitKind, cost: number): number {
    if (kind !== LimitKind.output) return cost;
    const { doubles, at } = this.#rows;
    return Math.min(cost, doubles[(this.#rows.word(row) + at.outputBurst) >> 1] as number);
  }

  #hold(slot: number, nth: number, row: number, output: number): void {
    const place = rowsOfRequest * slot + nth;
    this.#rowOf[place] = row;
    this.#output[place] = 0; // what the request before it in this slot took is no bound of it
    if (row === NONE) return;
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    this.#claim(row);
    this.#output[place] = this.#costOf(row, LimitKind.output, output);
    this.#ownerOf[place] = words[word + at.usedBy] as number;
    words[word + at.running] = (words[word + at.running] as number) + 1;
  }

  /** False: something is missing for sure. What only the store knows is marked as short. */
  #fits(nth: number, row: number, leases: Leases | undefined, nowUs: number): boolean {
    this.#isShort.fill(0, 3 * nth, 3 * nth + 3);
    if (row === NONE) return true;
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    this.#claim(row);
    const most = words[word + at.concurrency] as number;
    let fits = most === 0 || (words[word + at.running] as number) < most;
    if (!fits && this.waitUs === 0) this.kind = LimitKind.concurrency;
    for (const kind of bucketKinds) {
      const allowed = this.#buckets.allowed(row, kind, leases === undefined ? this.#share : 1);
      if (allowed.rate === 0) continue;
      const cost = this.#costOf(row, kind, this.#costs[kind] as number);
      const wait =
        leases === undefined
          ? this.#buckets.waitUs(row, kind, cost, allowed, nowUs)
          : leases.waitUs(row, kind, cost, allowed, nowUs);
      if (wait <= 0) continue;
      if (wait === ASK) {
        this.#isShort[3 * nth + kind] = 1;
        continue;
      }
      fits = false;
      if (wait <= this.waitUs) continue;
      this.kind = kind;
      this.waitUs = wait;
    }
    return fits;
  }

  #isClosed(limitRow: number, limitModelRow: number): boolean {
    const { leases } = this;
    if (leases === undefined) return false;
    const isClosed = [limitRow, limitModelRow].some((row) => row !== NONE && leases.isClosed(row));
    if (isClosed) {
      this.kind = LimitKind.storeDown;
      this.waitUs = storeDownUs;
    }
    return isClosed;
  }

  #setCosts(inputTokens: number, outputTokens: number): void {
    this.#costs[LimitKind.requests] = 1;
    this.#costs[LimitKind.input] = inputTokens;
    this.#costs[LimitKind.output] = outputTokens;
  }

  #correct(
    row: number,
    kind: LimitKind,
    cost: number,
    leases: Leases | undefined,
    nowUs: number,
  ): void {
    const allowed = this.#buckets.allowed(row, kind, leases === undefined ? this.#share : 1);
    if (allowed.rate === 0 || cost === 0) return;
    if (leases !== undefined) {
      leases.take(row, kind, cost);
      const isKnown =
        cost > 0 ? leases.askAhead(row, kind, nowUs) : leases.balance(row, kind, allowed, nowUs);
      if (!isKnown) this.#unbalanced.add(row);
      return;
    }
    this.#buckets.take(row, kind, cost, allowed, nowUs);
  }

  /** Empties a row that has another owner. */
  #claim(row: number): void {
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    const owner = words[word + at.owner] as number;
    if (words[word + at.usedBy] === owner) return;
    words[word + at.running] = 0;
    this.#buckets.fill(row);
    this.leases?.claim(row);
    // Pairs with the load in the limiter: once it sees the owner, what is leased is not of the last one.
    Atomics.store(words, word + at.usedBy, owner);
  }
}
