/**
 * The fixed-record rings between two threads: dispatch (scheduler -> one forwarder), event (one
 * forwarder -> scheduler) and reply (scheduler -> one acceptor).
 *
 * `lease` is generation and attempt of the slot (request-slots.layout.ts); a consumer drops a record
 * whose lease is not the slot's.
 */
import { i32 } from './layout.ts';
import { defineSpscLayout } from './spsc-ring.ts';

export const DispatchRingLayout = defineSpscLayout('dispatch_ring', 'scheduler', 'forwarder', {
  kind: i32(
    'scheduler',
    'DispatchKind: start an attempt, abort the one in progress, or start its hedge.',
  ),
  slot: i32('scheduler', 'Request slot index.'),
  lease: i32('scheduler', 'Generation and attempt this record is about.'),
  replica: i32('scheduler', 'Row of the replica table.'),
  epoch: i32(
    'scheduler',
    'Epoch of that row when it was picked; another epoch is another replica.',
  ),
  more: i32('scheduler', '1: the next record starts an attempt of the same batch.'),
});
export const DispatchKind = { start: 0, abort: 1, hedge: 2 } as const;
export type DispatchKind = (typeof DispatchKind)[keyof typeof DispatchKind];

export const EventRingLayout = defineSpscLayout('event_ring', 'forwarder', 'scheduler', {
  kind: i32('forwarder', 'EventKind.'),
  slot: i32('forwarder', 'Request slot index.'),
  lease: i32('forwarder', 'Generation and attempt this event is about.'),
  outcome: i32('forwarder', 'Outcome class of the attempt, for `released`.'),
  error: i32('forwarder', 'Error catalogue number; 0 for none.'),
  retryAfterMs: i32('forwarder', 'Wait the replica asked for; 0 for none.'),
  promptTokens: i32('forwarder', 'Usage as the replica reported it; -1 unknown.'),
  completionTokens: i32('forwarder', 'Usage as the replica reported it; -1 unknown.'),
  hedge: i32('forwarder', '1: of the hedge of the attempt; 0: of its first exchange.'),
  afterUs: i32('forwarder', 'Since that exchange began, for `started`.'),
});
/**
 * started: the first token of a stream is on its way to the client. released: the attempt has ended.
 * dropped: one of two exchanges has failed before either answered, and the other goes on.
 */
export const EventKind = { started: 0, released: 1, dropped: 2 } as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

/** How an attempt ended; the classes that routing learns from (PEERS.md 5.8 names). */
export const Outcome = {
  ok: 0,
  clientError: 1,
  busy: 2,
  dead: 3,
  slow: 4,
  truncated: 5,
  cancelled: 6,
  /** The forwarder died before it could tell. */
  lost: 7,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export const ReplyRingLayout = defineSpscLayout('reply_ring', 'scheduler', 'acceptor', {
  slot: i32('scheduler', 'Request slot index; the scheduler has settled it.'),
  lease: i32('scheduler', 'Generation and attempt at settlement.'),
  error: i32('scheduler', 'Error catalogue number of the answer.'),
  retryAfterMs: i32('scheduler', 'Advice for retry-after; 0 lets the catalogue decide.'),
});
