/**
 * Control block: doorbells, heartbeats and the few words every thread looks at.
 *
 * A thread's row index is its ThreadId: main 0, scheduler 1, then acceptors, forwarders, the limiter.
 */
import { column, defineLayout, f64, i32, rows, word } from './layout.ts';

export const ControlLayout = defineLayout('control', {
  draining: word('main', 'DrainStage: none, replaced, announced, refusing.'),
  stopping: word('main', '1 once streams must be cut: second signal or drain limit.'),
  sharesFiles: word('main', '1 while another process writes the same files, and renames them.'),
  overload: word('main', 'OverloadAction bits; above them the number of the sample they came of.'),
  waiting: word('scheduler', 'Requests waiting over all models; see EventWriter of forwarder/.'),
  queued: column('scheduler', 'Requests waiting in the queue, per model.'),
  thread: rows({
    bell: i32(
      'thread and its wakers',
      '1 while the thread sleeps or is about to; see doorbell.ts.',
    ),
    phase: i32('thread; main once it is dead', 'ThreadPhase.'),
    beats: i32('thread', 'Grows at least every 100 ms.'),
    beatUs: f64('thread', 'Time of the last beat.'),
    connections: i32('thread', 'Acceptor: open client connections. Forwarder: running attempts.'),
    arenaBytes: f64('thread', 'Acceptor: bytes of its arena partition in allocated blocks.'),
    utilization: f64('thread', 'Share of the last second the event loop was busy; 0 to 1.'),
    lagUs: f64('thread', 'Worst event-loop (scheduler: batch) delay of the last second.'),
  }),
});

/**
 * The order is that of time; a stage is never left for an earlier one.
 * replaced: another process has the addresses; every request of a connection that is left is served, and
 * its answer closes the connection.
 * announced: not ready any more, still serving, every answer closes its connection (drain.settle).
 * refusing: new requests are answered 503; those in flight go on.
 */
export const DrainStage = { none: 0, replaced: 1, announced: 2, refusing: 3 } as const;
export type DrainStage = (typeof DrainStage)[keyof typeof DrainStage];

/** What acceptors give up while memory or descriptors run out (gateway/overload-stages.ts). */
export const OverloadAction = {
  /** Every answer closes its connection. */
  keepAliveOff: 1,
  /** New requests are answered 503. */
  refuseRequests: 2,
  /** The client that holds the most bytes and takes none is cut, one a sample. */
  cutSlowReaders: 4,
  /** New connections are closed. */
  refuseConnections: 8,
} as const;
export type OverloadAction = (typeof OverloadAction)[keyof typeof OverloadAction];
export const overloadSampleShift = 4;

export const ThreadPhase = { starting: 0, running: 1, stopped: 2 } as const;
export type ThreadPhase = (typeof ThreadPhase)[keyof typeof ThreadPhase];

export interface ThreadCounts {
  readonly acceptors: number;
  readonly forwarders: number;
  /** 1 where limits are shared by way of a store. */
  readonly limiters?: 0 | 1;
}
export const ThreadId = {
  main: 0,
  scheduler: 1,
  acceptor: (index: number): number => 2 + index,
  forwarder: (index: number, counts: ThreadCounts): number => 2 + counts.acceptors + index,
  limiter: (counts: ThreadCounts): number => 2 + counts.acceptors + counts.forwarders,
  /** Threads with a row in the control block. */
  total: (counts: ThreadCounts): number =>
    2 + counts.acceptors + counts.forwarders + (counts.limiters ?? 0),
  /** Has metrics, and no row: nobody waits for it. */
  ledger: (counts: ThreadCounts): number => ThreadId.total(counts),
  tracer: (counts: ThreadCounts): number => ThreadId.total(counts) + 1,
} as const;
