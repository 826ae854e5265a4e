/**
 * Replica table: one row per replica the gateway may use, at most `replicaRows`.
 *
 * The main thread writes what a replica is and whether it may be used; the scheduler writes what it
 * has given it. A row is reused under a new epoch, so that a late message about the old replica is
 * not taken for one about the new. `version` grows after every change of a row by the main thread.
 */
import { defineLayout, f64, i32, rows, word } from './layout.ts';

export const replicaRows = 256;

export const ReplicaTableLayout = defineLayout('replica_table', {
  version: word('main', 'Grows after each change of the rows below; the scheduler re-reads them.'),
  count: word('main', 'Rows in use lie below this.'),
  replica: rows({
    epoch: i32('main', 'Changes whenever the row names another replica; 0: never used.'),
    admin: i32('main', 'ReplicaAdmin: absent, active or draining.'),
    healthy: i32('main', '1 while the health checker finds it fit.'),
    model: i32('main', 'Index into the model table.'),
    maxInFlight: i32('main', 'Requests it may hold at once.'),
    weight: f64('main', 'Relative share; above 0.'),
    identity: i32(
      'main',
      'Hash of its URL: its place on the hash ring, the same on every gateway.',
    ),
    kvTokens: i32('main', 'Tokens its KV cache holds; 0: not known.'),
    prefillUs: f64('main', 'Microseconds per prompt token of prefill.'),
    residentUs: f64('main', 'Microseconds per resident token and decode step.'),
    inFlight: i32('scheduler', 'Attempts dispatched and not released: a recount of the slots.'),
    dispatched: i32('scheduler', 'Attempts given to it; wraps.'),
    failed: i32('scheduler', 'Attempts that ended dead, slow or truncated; wraps.'),
    progressUs: f64('forwarder', 'When it last sent a byte of an answer; the last writer wins.'),
  }),
});

export const ReplicaAdmin = { absent: 0, active: 1, draining: 2 } as const;
export type ReplicaAdmin = (typeof ReplicaAdmin)[keyof typeof ReplicaAdmin];
