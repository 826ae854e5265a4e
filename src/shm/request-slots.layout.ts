/**
 * Request slots: one row per admitted request, the only truth about what is in flight.
 *
 * `stamp` = generation (23 bits) | attempt (6 bits) | state (3 bits); lease = stamp >>> 3. A message
 * about a slot carries the lease it was written for; with another lease it is late and is dropped.
 * The generation grows with every reuse of the row, the attempt with every dispatch.
 * All times are microseconds of lib/clock.ts; 0 means that it has not happened.
 */
import { responseKeyWords } from '../protocol/response-key.ts';
import { defineLayout, f64, i32, rows } from './layout.ts';

export const SlotState = {
  free: 0,
  reading: 1,
  queued: 2,
  dispatched: 3,
  streaming: 4,
  resuming: 5,
  settled: 6,
} as const;
export type SlotState = (typeof SlotState)[keyof typeof SlotState];

export interface StateRule {
  /** The thread that may write the row's stamp in this state. */
  readonly owner: 'acceptor' | 'scheduler' | 'forwarder';
  readonly next: readonly SlotState[];
  readonly meaning: string;
}

/**
 * Owner follows state. A thread that was started in the place of a dead one owns what that one owned:
 * the scheduler reads the table (scheduler/rebuild.ts), a forwarder the rows that name it
 * (forwarder/take-over.ts).
 */
export const slotStates: Readonly<Record<keyof typeof SlotState, StateRule>> = {
  free: { owner: 'acceptor', next: [SlotState.reading], meaning: 'Unused.' },
  reading: {
    owner: 'acceptor',
    next: [SlotState.queued, SlotState.free],
    meaning: 'The request is arriving; freed at once when it is refused or the client leaves.',
  },
  queued: {
    owner: 'scheduler',
    next: [SlotState.dispatched, SlotState.settled],
    meaning: 'Published to the scheduler; waits for a replica, or is refused.',
  },
  dispatched: {
    owner: 'forwarder',
    next: [SlotState.streaming, SlotState.resuming, SlotState.settled],
    meaning: 'An attempt runs; nothing of it has been committed to the client.',
  },
  streaming: {
    owner: 'forwarder',
    next: [SlotState.settled, SlotState.resuming],
    meaning: 'The answer has begun; it ends well, with an error event, or is to be continued.',
  },
  resuming: {
    owner: 'scheduler',
    next: [SlotState.dispatched, SlotState.settled],
    meaning: 'The attempt is over and the request is not; the scheduler decides what follows.',
  },
  settled: {
    owner: 'acceptor',
    next: [SlotState.free],
    meaning: 'The outcome is fixed and nobody else touches row or body; the client may still read.',
  },
};

export const attemptBits = 6;
export const stateBits = 3;
/** Attempts of one request stay below this. */
export const attemptsLimit = 1 << attemptBits;
/** Block hashes a row can carry: two int32 for each of the depths of ALGORITHMS 3. */
const prefixWords = 24;

export const RequestSlotsLayout = defineLayout('request_slots', {
  slot: rows({
    stamp: i32('owner of the state', 'Generation, attempt and state; compare-exchange.'),
    consumedBytes: i32('acceptor', 'Answer bytes the client connection took; wraps. The credit.'),
    clientGone: i32('acceptor', '1 once the client has left.'),
    acceptor: i32('acceptor', 'Index of the acceptor that owns this row.'),
    model: i32(
      'acceptor, then scheduler',
      'Index into the model table; of a fallback once the request has gone on to one.',
    ),
    adapter: i32('acceptor, then scheduler', 'Adapter of the model, counted from 1; 0 for none.'),
    askedModel: i32('acceptor', 'The model it came for; of a split the one it was given to.'),
    onwardModel: i32(
      'acceptor, then scheduler',
      'The model whose fallbacks it has: the one it came for, or the larger one of its cascade once it has gone on to that.',
    ),
    goOn: i32(
      'acceptor, then scheduler',
      'What an answer of its model may come to: bits of GoOn (lib/go-on.ts).',
    ),
    askedName: i32('acceptor', 'Hash of what it came for: name of the model, adapter or split.'),
    pin: i32(
      'acceptor, then scheduler',
      'Row + 1 of the only replica that can serve it, as the scheduler follows it; 0: any can.',
    ),
    pinEpoch: i32('acceptor, then scheduler', 'Epoch of that row.'),
    owner: i32(
      'acceptor',
      'Of POST /v1/responses: whose the response is (protocol/response-key.ts).',
      responseKeyWords,
    ),
    route: i32('acceptor', 'Route id (protocol/routes.ts).'),
    flags: i32('acceptor, then scheduler', 'RequestFlag bits; renamed is set when it goes on.'),
    headStart: i32('acceptor', 'Byte offset in the arena of the header blob.'),
    headLength: i32('acceptor', 'Bytes of the header blob.'),
    bodyStart: i32('acceptor', 'Byte offset in the arena of the body.'),
    bodyLength: i32('acceptor', 'Bytes of the body.'),
    nameStart: i32(
      'acceptor',
      'Byte offset in the body of the value of `model`; 0: there is none.',
    ),
    nameBytes: i32('acceptor', 'Bytes of that value.'),
    maxTokens: i32('acceptor', 'Output limit the client asked for; 0 for none.'),
    choices: i32('acceptor', 'The n of the request; at least 1.'),
    promptStart: i32('acceptor', 'Byte offset in the body of the prompt value.'),
    promptBytes: i32('acceptor', 'Bytes of the prompt value.'),
    textBytes: i32(
      'acceptor',
      'Bytes of the body that are for the model to read, without media; 0 where it reads none.',
    ),
    priority: i32('acceptor', 'From x-sluice-priority; 0 is the default.'),
    deadlineMs: i32(
      'acceptor',
      'Time the client allows; 0 and what is over timeouts.total take that.',
    ),
    hedgeMs: i32(
      'acceptor',
      'From x-sluice-hedge: when a hedge is wanted; 0 at once, -1 not asked for.',
    ),
    prefixCount: i32('acceptor', 'Block hashes that follow.'),
    prefixHash: i32(
      'acceptor, then scheduler',
      'Chained block hashes of its adapter, two words each.',
      prefixWords,
    ),
    sessionHash: i32('acceptor', 'Hash of the session key, two words; 0 0 for none.', 2),
    headHash: i32(
      'acceptor, then scheduler',
      'Hash of the first 64 characters of the prompt, of its adapter; 0 0 for none.',
      2,
    ),
    batchKey: i32(
      'acceptor',
      'Hash of the body around its prompt, two words; 0 0: never in a batch.',
      2,
    ),
    tenant: i32('acceptor', 'Lane of fair queueing: from the key of the client; 0 without one.'),
    limitRow: i32('acceptor', 'Row of the limits of its tenant; -1 for none.'),
    limitModelRow: i32('acceptor', 'Row of those of its tenant for its model; -1 for none.'),
    idHash: i32('acceptor', 'Hash of the request id, two words.', 2),
    arrivedUs: f64('acceptor', 'The head of the request was read.'),
    publishedUs: f64('acceptor', 'Published in the request ring.'),
    clientGoneUs: f64('acceptor', 'The client left.'),
    replica: i32('scheduler', 'Row of the replica table picked for the current attempt.'),
    replicaEpoch: i32('scheduler', 'Epoch of that row.'),
    forwarder: i32('scheduler', 'Forwarder that runs the attempt.'),
    failedReplicas: i32(
      'scheduler',
      'Replicas whose attempts failed, newest first; -1 for none.',
      4,
    ),
    explain: i32(
      'scheduler',
      'Current attempt: stamp of its record in the explain ring; 0 for none.',
    ),
    pastAttempts: i32(
      'scheduler',
      'Attempts at models that it has left; cleared with the first dispatch.',
    ),
    refused: i32('scheduler', 'Lease it settled with the refusal that follows; 0 for none.'),
    refusedError: i32('scheduler', 'Error catalogue number of that refusal.'),
    refusedRetryMs: i32('scheduler', 'Its advice for retry-after.'),
    limitedAs: i32(
      'scheduler',
      'Generation + 1 that took the following of its limits and has not given it back; 0 for none.',
    ),
    limitInput: i32('scheduler', 'Prompt tokens it took.'),
    limitOutput: i32('scheduler', 'Output tokens it took.'),
    limitLeased: i32('scheduler', '1: of what the store of shared limits has leased.'),
    hedgeReplica: i32('scheduler', 'Current attempt: row picked for its hedge; -1 for none.'),
    hedgeEpoch: i32('scheduler', 'Epoch of that row.'),
    hedgeExplain: i32('scheduler', 'Stamp of the explain record of that pick; 0 for none.'),
    queuedUs: f64('scheduler', 'Taken from the request ring.'),
    pickedUs: f64('scheduler', 'Current attempt: the policy had chosen.'),
    dispatchedUs: f64('scheduler', 'Current attempt: published in the dispatch ring.'),
    hedgeFlags: i32(
      'scheduler, then forwarder',
      'Current attempt: HedgeFlag bits; cleared with its dispatch.',
    ),
    hedges: i32('scheduler, then forwarder', 'Hedges begun for the request.'),
    continues: i32(
      'scheduler, then forwarder',
      '1: the client has a part of the answer; the next attempt continues it, on the same forwarder. Cleared with the first dispatch.',
    ),
    taken: i32('forwarder', 'Lease of the attempt last taken from the dispatch ring; 0 for none.'),
    told: i32('forwarder', 'Lease of the attempt whose end the event ring was told last.'),
    complete: i32(
      'forwarder',
      'Lease whose answer needs nothing but its end, once it is in the ring.',
    ),
    completeAt: i32('forwarder', 'Position of the response ring behind that answer; wraps.'),
    sharers: i32('forwarder', 'Attempts in the call to the replica, this one included.'),
    producedBytes: i32('forwarder', 'Answer bytes written to the response ring; wraps.'),
    status: i32('forwarder', 'Status of the replica, 0 before its head.'),
    error: i32('forwarder', 'Error catalogue number of the attempt; 0 for none.'),
    promptTokens: i32('forwarder', 'Usage as the replica reported it; -1 unknown.'),
    completionTokens: i32('forwarder', 'Usage as the replica reported it; -1 unknown.'),
    cachedTokens: i32('forwarder', 'Usage as the replica reported it; -1 unknown.'),
    sentUs: f64('forwarder', 'Current attempt: the request was handed to the connection.'),
    firstByteUs: f64('forwarder', 'Current attempt: the head of the answer arrived.'),
    firstTokenUs: f64('forwarder', 'The first event with content arrived.'),
    endedUs: f64('forwarder', 'The attempt was over.'),
  }),
});

/**
 * renamed: its body has another name than who serves it, or may have. readsMore: not all of its tokens are in its text.
 * unstored: the client wants its answer forgotten. background: the answer is the promise of one. judged: the reply of the model it came for may be discarded
 * for that of a larger one.
 */
export const RequestFlag = {
  stream: 1,
  includeUsage: 2,
  tls: 4,
  generates: 8,
  renamed: 16,
  unstored: 32,
  readsMore: 64,
  judged: 128,
  background: 256,
} as const;

/** over: the hedge has ended beside the first exchange. alone: the first exchange has, beside the hedge. */
export const HedgeFlag = { begun: 1, over: 2, alone: 4 } as const;
