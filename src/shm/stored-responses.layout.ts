/**
 * Stored responses: which replica keeps the response of an id, for as many as there is room.
 *
 * Set-associative: a key may lie in any of the `responseWays` entries of its set. Forwarders add entries
 * before a client can know the id, acceptors look them up and take out what was deleted. The stamp says who
 * has an entry: even, it is free to take; odd, the thread that made it so writes it, and is the only one to;
 * 0, never used. Every word is read and written with Atomics, so all threads see one order: a reader that
 * finds the same even stamp before and after the words has read those of one writer. A thread that dies while
 * it has an entry takes that entry with it and nothing else.
 */
import { responseKeyWords } from '../protocol/response-key.ts';
import { cells, defineLayout, i32, word } from './layout.ts';

/** Entries of a set: the least recently used of eight is given up for a new one. */
export const responseWays = 8;
/** `memory.responses` of a config that does not say: 3 MiB, and at ten responses a second two hours of them. */
export const responsesDefault = 65_536;

const owner = 'who has the entry';

export const StoredResponsesLayout = defineLayout('stored_responses', {
  clock: word('acceptor and forwarder', 'Grows with each use of an entry; wraps. Atomic add.'),
  entry: cells({
    stamp: i32('acceptor and forwarder', 'Who has the entry, see above; compare-exchange.'),
    used: i32('acceptor and forwarder', 'The clock when it was used last; the last writer wins.'),
    key: i32(owner, 'Hash of tenant and response id (protocol/response-key.ts).', responseKeyWords),
    row: i32(owner, 'Row of the replica that keeps it; -1: the entry is empty.'),
    epoch: i32(owner, 'Epoch of that row.'),
    identity: i32(owner, 'Hash of the URL of the replica, which may be given another row.'),
    model: i32(owner, 'Model of that row.'),
    adapter: i32(owner, 'Adapter of that model that answered; -1: not known.'),
    name: i32(owner, 'Hash of the name that was asked for; a reload renumbers what it stands for.'),
  }),
});
