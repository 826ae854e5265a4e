/**
 * The border of the brain: what it is told and what it decides. Types and names only.
 *
 * Times are microseconds of one clock (`Us`) or milliseconds (`Ms`). Errors are numbers the brain
 * passes through without knowing what they mean.
 */

/** Why a request ends without an answer of a replica. */
export const Refusal = {
  queueFull: 0,
  queueWaitOver: 1,
  noReplica: 2,
  busy: 3,
  failed: 4,
  deadline: 5,
  clientGone: 6,
  stopping: 7,
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

/** What the cause of a failure allows. `anywhere`: nothing was sent, so the same replica may serve. */
export const RetryRule = { never: 0, elsewhere: 1, anywhere: 2 } as const;
export type RetryRule = (typeof RetryRule)[keyof typeof RetryRule];

/** The end of one attempt. A record that its writer reuses; the brain keeps no reference. */
export interface Release {
  slot: number;
  generation: number;
  attempt: number;
  /** The replica said that it has no room, or refused the connection: nothing for it for a while. */
  busy: boolean;
  /** How long the replica asked to be left alone; 0: it did not say. */
  retryAfterMs: number;
  /** Error number of a failed attempt; 0 for none. */
  error: number;
  retry: RetryRule;
  /** The request has ended with the attempt; else the brain decides what follows. */
  settled: boolean;
}

/** An attempt that an earlier brain started and that is still running. */
export interface RunningAttempt {
  readonly slot: number;
  readonly generation: number;
  readonly attempt: number;
  readonly model: number;
  readonly replica: number;
  readonly epoch: number;
  readonly publishedUs: number;
  readonly deadlineUs: number;
  /** Replicas that failed this request, newest first. */
  readonly failed: readonly number[];
}

/** Decisions out. Called synchronously from within the brain; must not call back into it. */
export interface DecisionSink {
  /** Start attempt `attempt` (1 for the first) on the replica. `heldUs`: time spent waiting for room. */
  dispatch(slot: number, attempt: number, replica: number, epoch: number, heldUs: number): void;
  /** The request ends here. `error`: of its last attempt or of the pause; 0 for none. */
  refuse(slot: number, refusal: Refusal, error: number, retryAfterMs: number): void;
  /** The client of a running attempt has left; the end of the attempt is still to come. */
  abort(slot: number): void;
  /** The attempt is no longer counted. */
  attemptEnded(slot: number, replica: number): void;
  /** The attempt on `replica` failed and another one will follow. */
  retry(slot: number, replica: number): void;
}

export interface BrainConfig {
  readonly slots: number;
  readonly replicaRows: number;
  /** Policy name of each model. */
  readonly policies: readonly string[];
  readonly seed: number;
  /** Requests that may wait, per model. */
  readonly queueMax: number;
  readonly queueTimeoutMs: number;
  readonly retry: {
    readonly maxAttempts: number;
    readonly budget: number;
    readonly budgetMin: number;
  };
}
