/**
 * Limits of tenants: one row for each tenant that has some, and for each of its models that has some.
 *
 * The main thread writes what is allowed, the scheduler what is used; so a check is exact over all
 * acceptors, and outlives the scheduler. A row that is given to another owner is emptied first.
 * Buckets are GCRA (ITU-T I.371): `…Tat` is the theoretical arrival time in microseconds of
 * lib/clock.ts, the time at which the bucket is full again; `…TatRate` the rate that makes units of it, so
 * that a change of limits leaves taken what was taken.
 */
import { defineLayout, f64, i32, rows } from './layout.ts';

export const LimitsLayout = defineLayout('limits', {
  row: rows({
    requestRate: f64('main', 'Requests per second; 0: no limit.'),
    requestBurst: f64('main', 'Requests a full bucket holds.'),
    inputRate: f64('main', 'Prompt tokens per second; 0: no limit.'),
    inputBurst: f64('main', 'Prompt tokens a full bucket holds.'),
    outputRate: f64('main', 'Output tokens per second; 0: no limit.'),
    outputBurst: f64('main', 'Output tokens a full bucket holds.'),
    concurrency: i32('main', 'Requests at one time; 0: no limit.'),
    owner: i32('main', 'Counts the owners of the row: another one starts with full buckets.'),
    requestTat: f64('scheduler', 'Bucket of requests.'),
    inputTat: f64('scheduler', 'Bucket of prompt tokens.'),
    outputTat: f64('scheduler', 'Bucket of output tokens.'),
    requestTatRate: f64(
      'scheduler',
      'Requests a microsecond that `requestTat` is by; 0: nothing taken.',
    ),
    inputTatRate: f64('scheduler', 'Prompt tokens a microsecond that `inputTat` is by.'),
    outputTatRate: f64('scheduler', 'Output tokens a microsecond that `outputTat` is by.'),
    running: i32('scheduler', 'Requests it has in the gateway.'),
    usedBy: i32('scheduler', 'The owner that what is before is of.'),
  }),
});
