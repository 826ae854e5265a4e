/**
 * Leases: what this gateway holds of limits that it shares with others by way of a store. One row beside
 * each row of the limit table (limits.layout.ts); there only where `limits.store` is not `local`.
 *
 * The limiter raises `granted` by what the store has given, the scheduler moves `used` by what requests take
 * and give back: the difference is what may be taken without asking. Each is written by one thread and
 * outlives it. `asked` numbers the questions; the limiter reads it, then what is wanted, asks the store,
 * writes what came of it, then `answered`: who waits for question n is decided once `answered` is n.
 * Fields of three are of requests, prompt tokens and output tokens (LimitKind); a level is a value of
 * `granted`.
 */
import { defineLayout, f64, i32, rows, word } from './layout.ts';
import { defineSpscLayout } from './spsc-ring.ts';

const kinds = 3;

export const LeasesLayout = defineLayout('leases', {
  isDown: word(
    'limiter; main once it is dead',
    '1 while the store does not answer: each tenant goes by its failure mode.',
  ),
  answers: word('limiter', 'Counts answers; the scheduler looks at who waits when it has moved.'),
  row: rows({
    isClosed: i32('main', '1: its requests are refused while the store is down.'),
    isInRing: i32('scheduler and limiter', '1 while the row is in the ring of questions.'),
    asked: i32('scheduler', 'Number of the last question.'),
    used: f64('scheduler', 'Taken, less what came back.', kinds),
    demand: f64('scheduler', 'Ever taken.', kinds),
    returned: f64('scheduler', 'Of `used`: taken by nobody, to be given back to the store.', kinds),
    need: f64('scheduler', 'Level at which the first of those who wait may go.', kinds),
    want: f64('scheduler', 'Level at which all who wait may go.', kinds),
    answered: i32('limiter', 'Number of the last question that is answered.'),
    granted: f64('limiter', 'Given by the store.', kinds),
    refunded: f64('limiter', 'Of `returned`: what has been given back.', kinds),
    keep: f64('limiter', 'What is worth holding for requests to come.', kinds),
    tat: f64('limiter', 'The bucket in the store, on the clock of lib/clock.ts.', kinds),
    refused: f64('limiter', 'Level that the store refused to reach.', kinds),
    retryUs: f64('limiter', 'It is not asked for that level, or a higher one, before.', kinds),
  }),
});

export const AskRingLayout = defineSpscLayout('ask_ring', 'scheduler', 'limiter', {
  row: i32('scheduler', 'Row of the limits that the store is asked about.'),
});
