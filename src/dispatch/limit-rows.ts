/** Names and types of what limits the requests of tenants (limits.ts). Pure. */
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';

/** What a request was refused for. */
export const LimitKind = {
  requests: 0,
  input: 1,
  output: 2,
  concurrency: 3,
  storeDown: 4,
} as const;
export type LimitKind = (typeof LimitKind)[keyof typeof LimitKind];

/** `asks`: the store has to say; nothing is taken yet. */
export const Admission = { refused: 0, admitted: 1, asks: 2 } as const;
export type Admission = (typeof Admission)[keyof typeof Admission];

/** The shared rows. Indexes of numbers count doubles, those of counts int32. */
export interface LimitRows {
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly count: number;
  /** Int32 index of a row. */
  word(row: number): number;
  readonly at: {
    readonly requestRate: number;
    readonly requestBurst: number;
    readonly inputRate: number;
    readonly inputBurst: number;
    readonly outputRate: number;
    readonly outputBurst: number;
    readonly requestTat: number;
    readonly inputTat: number;
    readonly outputTat: number;
    readonly requestTatRate: number;
    readonly inputTatRate: number;
    readonly outputTatRate: number;
    readonly concurrency: number;
    readonly running: number;
    readonly owner: number;
    readonly usedBy: number;
  };
}

/** Of a brain that knows no tenants. */
export const unlimitedRows: LimitRows = {
  words: new Int32Array(0),
  doubles: new Float64Array(0),
  count: 0,
  word: () => 0,
  at: {
    ...{ requestRate: 0, requestBurst: 0, requestTat: 0, inputRate: 0, inputBurst: 0, inputTat: 0 },
    ...{ outputRate: 0, outputBurst: 0, outputTat: 0, concurrency: 0, running: 0 },
    ...{ requestTatRate: 0, inputTatRate: 0, outputTatRate: 0, owner: 0, usedBy: 0 },
  },
};

/** What an arrival says that counts in no limit. */
export const unlimited = {
  ...{ limitRow: NONE, limitModelRow: NONE, takenInput: -1, takenOutput: -1 },
  takenLeased: false,
  ...{ generates: true, choices: 1 },
} as const;

/** The last question about each row, by its number; NONE: none was asked. */
export interface Questions {
  readonly rows: Int32Array;
  readonly numbers: Int32Array;
}

export type Limited = Pick<Arrival, 'slot' | 'limitRow' | 'limitModelRow'>;

/** Rows that a request counts in: of its tenant, and of its tenant and model; NONE for none. */
export const rowsOfRequest = 2;
