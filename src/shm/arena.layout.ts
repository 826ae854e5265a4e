/**
 * Payload arena: request bodies and header blobs, one equal partition per acceptor.
 *
 * An acceptor writes and frees its own partition only; its allocator is private to it (arena.ts).
 * Forwarders read a request's bytes between the dispatch record that names the slot and the record
 * that settles it; the acceptor frees them after the slot has settled, never before.
 */
import { bytes, defineLayout } from './layout.ts';

export const ArenaLayout = defineLayout('arena', {
  data: bytes(
    'acceptor',
    'Bodies and header blobs; partition a is bytes [a * size, (a + 1) * size).',
  ),
});
