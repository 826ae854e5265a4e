/** What the harness of a brain keeps of its decisions. Types only. */

export interface Running {
  readonly attempt: number;
  readonly replica: number;
}

/** What a request was placed on, copied while it was so. */
export interface Placed {
  readonly slot: number;
  readonly attempt: number;
  readonly heldUs: number;
  readonly replica: number;
  readonly isBySession: boolean;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly seen: readonly {
    readonly row: number;
    readonly inFlight: number;
    readonly pendingTokens: number;
    readonly contextTokens: number;
    readonly matchedTokens: number;
  }[];
  /** Reasons with a count above 0. */
  readonly filtered: Readonly<Record<string, number>>;
}
