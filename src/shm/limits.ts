/** The table of limits as threads see it. */
import { LimitsLayout } from './limits.layout.ts';
import { limitCounts } from './memory.ts';

export class LimitTable {
  readonly count = limitCounts.row;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly at: ReturnType<typeof LimitsLayout.place>['at']['row']['at'];
  readonly #base: number;
  readonly #stride: number;

  constructor(region: SharedArrayBuffer) {
    const { base, stride, at } = LimitsLayout.attach(region, limitCounts).at.row;
    this.words = new Int32Array(region);
    this.doubles = new Float64Array(region);
    this.at = at;
    this.#base = base;
    this.#stride = stride;
  }

  /** Int32 index of a row. */
  word(row: number): number {
    return this.#base + row * this.#stride;
  }
}
