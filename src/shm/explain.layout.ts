/**
 * Explain ring: what the newest decisions of the scheduler were made from, one record each, cyclic.
 *
 * The record of position p lies at index p modulo their number. Its stamp says who has it: 2p + 2 it is
 * complete and free to take, one less while the scheduler writes it or a reader reads it, 0 never used.
 * Whoever has taken a record is the only one to touch its other words and its candidates, which are the
 * `explainCandidatesMax` cells from index times that number on: no word is ever raced for.
 */
import { cells, defineLayout, i32, rows } from './layout.ts';

/** Half a second at 2,000 requests a second, minutes where somebody looks by hand. A power of two. */
export const explainRecords = 1024;
/** Candidates a record has room for; of more, the first ones and the chosen one. */
export const explainCandidatesMax = 32;
/** Reasons of dispatch/choice.ts. */
export const explainFilters = 14;

/** Who chose, where there was a choice. */
export const Chooser = { policy: 0, session: 1, pin: 2 } as const;

export const ExplainLayout = defineLayout('explain', {
  record: rows({
    stamp: i32('scheduler and readers', 'Position and owner, see above; compare-exchange.'),
    idHash: i32('scheduler', 'Hash of the request id, two words.', 2),
    model: i32('scheduler', 'Index into the model table.'),
    attempt: i32('scheduler', 'Attempt of the request, from 1.'),
    hedge: i32('scheduler', '1: for the hedge of the attempt.'),
    replica: i32('scheduler', 'Row that was chosen.'),
    tableVersion: i32('scheduler', 'Version of the replica table that the rows are of.'),
    heldUs: i32(
      'scheduler',
      'Time it had waited for room, since it came or since its last attempt.',
    ),
    promptTokens: i32('scheduler', 'Tokens of the prompt, as far as they were known.'),
    outputTokens: i32('scheduler', 'Tokens its answer was expected to have.'),
    chosenBy: i32(
      'scheduler',
      'Chooser: the policy of the model, the ring of sessions, or nobody: it was pinned.',
    ),
    members: i32('scheduler', 'Replicas of the model.'),
    candidates: i32('scheduler', 'Those that could be chosen; may be more than are listed.'),
    filtered: i32(
      'scheduler',
      'Those that could not, by reason (dispatch/choice.ts).',
      explainFilters,
    ),
  }),
  // Tokens fit an int32: the prompts in flight are in the arena, whose offsets do.
  candidate: cells({
    row: i32('scheduler', 'Row of the replica table.'),
    inFlight: i32('scheduler', 'Attempts it was running.'),
    pendingTokens: i32('scheduler', 'Prompt tokens it had yet to prefill.'),
    contextTokens: i32('scheduler', 'Prompt tokens it kept resident.'),
    matchedTokens: i32(
      'scheduler',
      'Tokens of this prompt it held; 0 where the policy does not ask.',
    ),
  }),
});

export const explainCounts = (records: number) => ({
  record: records,
  candidate: records * explainCandidatesMax,
});
