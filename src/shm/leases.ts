/** The table of leases as threads see it. */
import { LeasesLayout } from './leases.layout.ts';
import { limitCounts } from './memory.ts';

export class LeaseTable {
  readonly count = limitCounts.row;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly at: ReturnType<typeof LeasesLayout.place>['at']['row']['at'];
  /** Int32 indexes. */
  readonly isDown: number;
  readonly answers: number;
  readonly #base: number;
  readonly #stride: number;

  constructor(region: SharedArrayBuffer) {
    const { row, isDown, answers } = LeasesLayout.attach(region, limitCounts).at;
    this.words = new Int32Array(region);
    this.doubles = new Float64Array(region);
    this.at = row.at;
    this.isDown = isDown;
    this.answers = answers;
    this.#base = row.base;
    this.#stride = row.stride;
  }

  /** Int32 index of a row. */
  word(row: number): number {
    return this.#base + row * this.#stride;
  }
}
