/**
 * What a request takes of its limits when it arrives, as far as it does not say: by what the requests of the same
 * row have come to before (lib/reckoning.ts). Pure. No tenant teaches for another.
 *
 * Of the two rows that a request may count in, that of the model knows more. A scheduler that is started again
 * begins anew, as does a row with another owner.
 */
import { Reckoning } from '../lib/reckoning.ts';
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import type { Release } from './decisions.ts';
import type { Limited, LimitRows } from './limit-rows.ts';

/** A column has room for it. */
const tokensMax = 2 ** 31 - 1;

export class Foreseen {
  readonly #rows: LimitRows;
  readonly #byRow: (Reckoning | undefined)[];
  /** The owner that each of them is of. */
  readonly #owners: Int32Array;
  readonly #choices: Int32Array;
  /** The row that teaches and is taught by the request of a slot. */
  readonly #rowOf: Int32Array;
  /** Tokens that its answer takes of its limits at most; Infinity: none of them counts output. */
  readonly #outputMax: Float64Array;

  constructor(rows: LimitRows, slots: number) {
    this.#rows = rows;
    this.#byRow = new Array(rows.count);
    this.#owners = new Int32Array(rows.count);
    this.#choices = new Int32Array(slots);
    this.#rowOf = new Int32Array(slots).fill(NONE);
    this.#outputMax = new Float64Array(slots);
  }

  /** Whose the request is; of every arrival, or it would teach for who had its slot before. */
  note(arrival: Arrival): void {
    const { slot, limitRow, limitModelRow } = arrival;
    this.#rowOf[slot] = teaches(arrival);
    this.#choices[slot] = arrival.choices;
    const most = Math.max(this.#outputBurst(limitRow), this.#outputBurst(limitModelRow));
    this.#outputMax[slot] = most || Number.POSITIVE_INFINITY;
  }

  /** Tokens of its prompt; 0 where no model reads a text. */
  input(arrival: Arrival): number {
    const { promptTokens, textBytes } = arrival;
    if (promptTokens > 0 || textBytes === 0) return promptTokens;
    return this.#of(arrival).promptTokens(textBytes);
  }

  /** Tokens of its answer, at most by its own limit, else as reckoned. */
  output(arrival: Arrival): number {
    const { maxTokens, generates, choices } = arrival;
    if (!generates) return 0;
    return Math.min((maxTokens || this.#of(arrival).outputTokens) * choices, tokensMax);
  }

  /** An answer is all there, and its replica says what it came to. */
  learn({ slot, promptTokens, completionTokens }: Release, textBytes: number): void {
    const row = this.#rowOf[slot] as number;
    const choices = this.#choices[slot] as number;
    if (row === NONE || choices === 0) return;
    const { words, at } = this.#rows;
    if (this.#owners[row] !== words[this.#rows.word(row) + at.owner]) return; // it was another's
    const most = this.#outputMax[slot] as number;
    this.#byRow[row]?.learn(textBytes, promptTokens, completionTokens / choices, most);
  }

  /** 0: there is no row, or it does not count output, whatever its burst. */
  #outputBurst(row: number): number {
    if (row === NONE) return 0;
    const { doubles, at } = this.#rows;
    const word = this.#rows.word(row);
    const rate = doubles[(word + at.outputRate) >> 1] as number;
    return rate === 0 ? 0 : (doubles[(word + at.outputBurst) >> 1] as number);
  }

  #of(limited: Limited): Reckoning {
    const row = teaches(limited);
    const { words, at } = this.#rows;
    const owner = words[this.#rows.word(row) + at.owner] as number;
    const known = this.#byRow[row];
    if (known !== undefined && this.#owners[row] === owner) return known;
    const fresh = new Reckoning();
    this.#byRow[row] = fresh;
    this.#owners[row] = owner;
    return fresh;
  }
}

const teaches = ({ limitRow, limitModelRow }: Limited): number =>
  limitModelRow === NONE ? limitRow : limitModelRow;
