/**
 * Replica table: one row per replica the gateway may use, at most `replicaRows`.
 *
 * The main thread writes what a replica is and whether it may be used; the scheduler writes what it
 * has given it. A row is reused under a new epoch, so that a late message about the old replica is
 * not taken for one about the new. `version` grows after every change of a row by the main thread,
 * except for what an engine reports of itself: the scheduler looks for that a few times a second. Each
 * report is written to the half of the columns that is not the last one, then published by `reports`.
 */
import { adaptersMax } from '../config/capacities.ts';
import { defineLayout, f64, i32, rows, word } from './layout.ts';

export const replicaRows = 256;

export const ReplicaTableLayout = defineLayout('replica_table', {
  version: word('main', 'Grows after each change of the rows below; the scheduler re-reads them.'),
  count: word('main', 'Rows in use lie below this.'),
  replica: rows({
    epoch: i32('main', 'Changes whenever the row names another replica; 0: never used.'),
    admin: i32('main', 'ReplicaAdmin: absent, active, draining or leaving.'),
    healthy: i32('main', '1 while the health checker finds it fit.'),
    model: i32('main', 'Index into the model table.'),
    maxInFlight: i32('main', 'Requests it may hold at once.'),
    weight: f64('main', 'Relative share; above 0.'),
    identity: i32(
      'main',
      'Hash of its URL: its place on the hash ring, the same on every gateway.',
    ),
    kvTokens: i32('main', 'Tokens its KV cache holds; 0: not known.'),
    batchItems: i32('main', 'Requests it takes in one call; 0: it takes no batches.'),
    batchBytes: i32('main', 'Bytes of their prompts together.'),
    batchWindowUs: f64('main', 'Longest wait of a request for others to go with.'),
    adapters: i32('main', 'One bit for each adapter of its model, from 1 on.', adaptersMax / 32),
    loadable: i32('main', 'One bit for each adapter that it loads when asked.', adaptersMax / 32),
    rateRequests: f64('main', 'Requests it may be given in a microsecond; 0: no limit.'),
    rateTokens: f64('main', 'Tokens it may be given in a microsecond; 0: no limit.'),
    rateBurstUs: f64('main', 'Time in which as much comes as its full bucket holds.'),
    prefillUs: f64('main', 'Microseconds per prompt token of prefill.'),
    residentUs: f64('main', 'Microseconds per resident token and decode step.'),
    reports: i32('main', 'Grows with each report of the engine; odd: the second half is the last.'),
    engineRunning: i32('main', 'Requests the engine says it runs, whoever sent them.', 2),
    engineWaiting: i32('main', 'Requests the engine says it has waiting.', 2),
    engineKvTokens: i32('main', 'Tokens in its KV cache; 0: it does not say.', 2),
    engineKvCapacity: i32('main', 'Tokens its KV cache holds; 0: it does not say.', 2),
    engineOwnRequests: i32('main', '`inFlight` at the time of the report.', 2),
    engineOwnTokens: f64('main', '`contextTokens` at the time of the report.', 2),
    scrapedUs: f64('main', 'When the report was asked for.', 2),
    scrapeIntervalUs: f64('main', 'Time between two reports.', 2),
    inFlight: i32('scheduler', 'Attempts dispatched and not released: a recount of the slots.'),
    contextTokens: f64('scheduler', 'Prompt tokens of those attempts.'),
    breaker: i32('scheduler', 'BreakerState: closed, open or half open.'),
    ejections: i32('scheduler', 'Times its breaker has opened; wraps.'),
    dispatched: i32('scheduler', 'Attempts given to it; wraps.'),
    adapterUsedUs: f64('scheduler', 'When each adapter was last used; 0: never.', adaptersMax),
    failed: i32('scheduler', 'Attempts that ended dead, slow or truncated; wraps.'),
    progressUs: f64('forwarder', 'When it last sent a byte of an answer; the last writer wins.'),
  }),
});

/**
 * draining: it serves what it has begun, and requests for what it keeps. leaving: what it has begun alone; it
 * is about to be removed.
 */
export const ReplicaAdmin = { absent: 0, active: 1, draining: 2, leaving: 3 } as const;
export type ReplicaAdmin = (typeof ReplicaAdmin)[keyof typeof ReplicaAdmin];
