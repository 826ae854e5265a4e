/**
 * Request ring: many acceptors -> one scheduler.
 *
 * A cell's sequence says who owns it: p = free for the producer that claims position p,
 * p + 1 = published, p + capacity = free for the next lap. The intent row names the position a
 * producer is trying to claim, so that the claim of a dead producer can be told from the claim of a
 * live one and tombstoned (see request-ring.ts).
 */
import { cells, defineLayout, i32, rows, word } from './layout.ts';

export const RequestRingLayout = defineLayout('request_ring', {
  tail: word('acceptor', 'Next position to claim; compare-exchange.'),
  head: word('scheduler', 'Next position to consume; published for readers of the depth.'),
  intent: rows({
    position: i32('acceptor', 'Position this producer claims or claimed last; see `elsewhere`.'),
  }),
  cell: cells({
    sequence: i32('acceptor|scheduler', 'Owner follows the value; publishes the fields below.'),
    kind: i32(
      'acceptor',
      'RequestKind: arrive, cancel, or tombstone (written by the main thread).',
    ),
    slot: i32('acceptor', 'Request slot index.'),
    lease: i32('acceptor', 'Generation and attempt of the slot when the message was written.'),
  }),
});

export const RequestKind = { arrive: 0, cancel: 1, tombstone: 2 } as const;
export type RequestKind = (typeof RequestKind)[keyof typeof RequestKind];
