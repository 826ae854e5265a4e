/**
 * The border of the brain: what it is told and what it decides. Types and names only.
 *
 * Times are microseconds of one clock (`Us`) or milliseconds (`Ms`). Errors are numbers the brain
 * passes through without knowing what they mean.
 */
import type { Arrival, PrefixSource } from './arrival.ts';
import type { BreakerRules } from './breaker.ts';
import type { Choice } from './choice.ts';
import type { SharedLimits } from './leases.ts';
import type { LimitRows } from './limit-rows.ts';

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
  /** Its first token would come after its deadline. */
  tooLate: 8,
  /** Turned away for requests of higher priority. */
  shed: 9,
  /** A limit of its tenant. */
  limited: 10,
  /** Its prompt is too long for the model. */
  tooLong: 11,
  /** The replica that keeps what it goes on with is no more. */
  gone: 12,
  /** The model has refused to answer, or is not sure of its answer, and there is a larger one. */
  refused: 13,
  unsure: 14,
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

/**
 * What the cause of a failure allows. `anywhere`: nothing was sent, so the same replica may serve.
 * `alone`: its batch has failed, which says nothing about this request. `again`: the gateway itself lost
 * the attempt, so every replica may be asked, the same one too. `unserved`: as `elsewhere`, but the replica
 * turned the request away unread, so that no work is done twice. `otherModel`: no replica of the model can
 * serve it. `refused`, `unsure`: the reply of the model was discarded for that of a larger one.
 */
export const RetryRule = {
  never: 0,
  elsewhere: 1,
  anywhere: 2,
  alone: 3,
  again: 4,
  unserved: 5,
  otherModel: 6,
  refused: 7,
  unsure: 8,
} as const;
export type RetryRule = (typeof RetryRule)[keyof typeof RetryRule];

/** In place of an error number: the rate limits that the gateway keeps for a replica. */
export const ownLimit = -1;

/** Why a request goes on to another model. */
export const FallbackReason = {
  /** No more attempts at this one. */
  failed: 0,
  noReplica: 1,
  /** Its replicas asked to be left alone. */
  busy: 2,
  queueFull: 3,
  queueTimeout: 4,
  /** Its prompt is too long. */
  context: 5,
  /** The model has refused to answer, or is not sure of its answer. */
  refusal: 6,
  lowConfidence: 7,
} as const;
export type FallbackReason = (typeof FallbackReason)[keyof typeof FallbackReason];

/** Models to go on to, in this order; adapters counted from 1, 0 for none. */
export type FallbackList = readonly { readonly model: number; readonly adapter: number }[];

/** What the end of an attempt says of its replica: nothing, that it works, that it does not. */
export const Verdict = { none: 0, good: 1, bad: 2 } as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/**
 * Who knows what an attempt came to. `told`: its replica or the gateway ended it. `left`: it was cut for its client,
 * or for the time that one allows. `lost`: nobody saw its end.
 */
export const Ended = { told: 0, left: 1, lost: 2 } as const;
export type Ended = (typeof Ended)[keyof typeof Ended];

/** What became of a hedge. */
export const HedgeResult = {
  /** The hedge answered, or the first exchange failed before it. */
  won: 0,
  lost: 1,
  /** It failed while the first exchange went on. */
  failed: 2,
  /** The request ended before either of them answered. */
  cancelled: 3,
} as const;
export type HedgeResult = (typeof HedgeResult)[keyof typeof HedgeResult];

/** The first token of an attempt. A record that its writer reuses. */
export interface FirstToken {
  slot: number;
  generation: number;
  attempt: number;
  /** It is of the hedge. */
  hedge: boolean;
  /** Since the exchange that shows it began. */
  afterUs: number;
}

/** The end of one attempt. A record that its writer reuses; the brain keeps no reference. */
export interface Release {
  slot: number;
  generation: number;
  attempt: number;
  /** The exchange that ends, and with it the attempt, is the hedge. */
  hedge: boolean;
  /** The replica said that it has no room, or refused the connection: nothing for it for a while. */
  busy: boolean;
  verdict: Verdict;
  ended: Ended;
  /** The replica has answered with an error of the client; absent: it has not. */
  refused?: boolean;
  /** How long the replica asked to be left alone; 0: it did not say. */
  retryAfterMs: number;
  /** Error number of a failed attempt; 0 for none. */
  error: number;
  retry: RetryRule;
  /** The request has ended with the attempt; else the brain decides what follows. */
  settled: boolean;
  /** The client has a part of the answer: what follows goes on behind it, and has no hedge. */
  continues: boolean;
  /** Usage as the replica reported it; below 0 when it did not. */
  promptTokens: number;
  completionTokens: number;
}

/** An attempt that an earlier brain started and that is still running. */
export interface RunningAttempt {
  readonly arrival: Arrival;
  readonly attempt: number;
  /** Of these at models that it has left. */
  readonly pastAttempts: number;
  readonly replica: number;
  readonly epoch: number;
  /** Its first token is out. */
  readonly hasToken: boolean;
  /** Where it runs as well; undefined: nowhere. */
  readonly hedge: { readonly replica: number; readonly epoch: number } | undefined;
  /** The request has had a hedge, or may have none. */
  readonly isHedgeUsed: boolean;
  /** Replicas that failed this request, newest first. */
  readonly failed: readonly number[];
}

/** Decisions out. Called synchronously from within the brain; must not call back into it. */
export interface DecisionSink {
  /** Why the replica of the dispatch that follows was chosen. */
  placed(slot: number, attempt: number, heldUs: number, choice: Choice): void;
  /** Start attempt `attempt` (1 for the first) on the replica. `heldUs`: time spent waiting for room. */
  dispatch(slot: number, attempt: number, replica: number, epoch: number, heldUs: number): void;
  /** Start a second exchange of the running attempt on the replica, chosen as `choice` says. */
  hedge(slot: number, attempt: number, replica: number, epoch: number, choice: Choice): void;
  /** Two exchanges of an attempt are one again, or none. */
  hedgeEnded(slot: number, result: HedgeResult): void;
  /** The exchange with `replica` failed and the other one of the attempt goes on. */
  dropped(slot: number, replica: number): void;
  /** The dispatches until batchEnds() are one batch: all go to one replica, in one call. */
  batchBegins(): void;
  batchEnds(): void;
  /** The request ends here. `error`: of its last attempt or of the pause; 0 for none. */
  refuse(slot: number, refusal: Refusal, error: number, retryAfterMs: number): void;
  /** The request has taken so many tokens of the limits of its tenant; `isLeased`: of what is leased. */
  admitted(slot: number, inputTokens: number, outputTokens: number, isLeased: boolean): void;
  /** The request goes on from one model to another; it waits or has ended an attempt. */
  fellBack(slot: number, from: number, to: FallbackList[number], reason: FallbackReason): void;
  /** What an answer of its model may come to: GoOn bits, none until the first call. */
  mayGoOn(slot: number, goOn: number): void;
  /** The only replica that can serve the request has another row now; it waits or has ended an attempt. */
  followed(slot: number, row: number, epoch: number): void;
  /** What it did not use of them is given back. */
  settledLimits(slot: number): void;
  /** The client of a running attempt has left; the end of the attempt is still to come. */
  abort(slot: number): void;
  /** The attempt is no longer counted. */
  attemptEnded(slot: number, replica: number): void;
  /** The attempt on `replica` failed and another one will follow. */
  retry(slot: number, replica: number): void;
}

export interface ModelRules {
  readonly policy: string;
  /** Requests of one session go to one replica (prefix-affinity.ts). */
  readonly sessionAffinity: boolean;
  /**
   * Requests wait in the gateway, where order can still change, while every replica has this many
   * prompt tokens to prefill; Infinity: they never do.
   */
  readonly holdTokens: number;
  /** Where requests go on that find no answer here, and those whose prompts are too long; absent: nowhere. */
  readonly fallbacks?: FallbackList | undefined;
  readonly contextFallbacks?: FallbackList | undefined;
  /** Where requests go on whose replies were discarded; absent: nowhere. */
  readonly cascade?: FallbackList[number] | undefined;
}

/** When a replica is left out for what it did, and how many at once. */
export interface OutlierRules extends BreakerRules {
  /** Share of a model's replicas that may be out by their breakers, at least one. */
  readonly maxEjected: number;
  /** With a smaller share left, those that are out are asked as well. */
  readonly panicBelow: number;
}

export interface BrainConfig {
  readonly slots: number;
  readonly replicaRows: number;
  readonly models: readonly ModelRules[];
  /** Lanes of fair queueing per model. */
  readonly tenants: number;
  readonly prefixes: PrefixSource;
  /** What tenants may use; absent: they have no limits. */
  readonly limits?: LimitRows | undefined;
  /** How they are shared with other gateways; absent: they are not. */
  readonly sharedLimits?: SharedLimits | undefined;
  readonly seed: number;
  /** Requests that may wait, per model. */
  readonly queueMax: number;
  readonly queueTimeoutMs: number;
  readonly retry: {
    readonly maxAttempts: number;
    readonly budget: number;
    readonly budgetMin: number;
  };
  readonly hedge: {
    /** Also for streams that nobody asked it for. */
    readonly automatic: boolean;
    /** Those, as a share of all requests. */
    readonly budget: number;
  };
  readonly breaker: OutlierRules;
  /** How long a replica takes to its full share once it is back; 0: no time. */
  readonly slowStartUs: number;
}
