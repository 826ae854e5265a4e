/** What became of each request of a run, as parallel columns. Pure. */

export const Outcome = { open: 0, finished: 1, refused: 2, broken: 3 } as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export class Records {
  readonly outcome: Uint8Array;
  /** When it was sent: the arrival, or later where a chat waits for its last answer. */
  readonly sentUs: Float64Array;
  readonly dispatchUs: Float64Array;
  readonly firstUs: Float64Array;
  readonly finishUs: Float64Array;
  /** Replica of the last dispatch; -1 before the first. */
  readonly row: Int32Array;
  /** Prompt tokens that were in the replica's cache. */
  readonly hitTokens: Int32Array;
  readonly dispatches: Uint8Array;

  constructor(count: number) {
    this.outcome = new Uint8Array(count);
    this.sentUs = new Float64Array(count);
    this.dispatchUs = new Float64Array(count);
    this.firstUs = new Float64Array(count);
    this.finishUs = new Float64Array(count);
    this.row = new Int32Array(count).fill(-1);
    this.hitTokens = new Int32Array(count);
    this.dispatches = new Uint8Array(count);
  }
}
