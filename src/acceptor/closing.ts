/** Which connections end with their answer, though their clients would keep them. Acceptor threads. */
import { DrainStage, OverloadAction } from '../shm/control.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { Closing, type Exchange } from './listener.ts';
import { isDegraded } from './overload.ts';

/**
 * While the gateway drains, or its memory or descriptors run out, every answer says that its connection
 * closes. Once its head has gone out (keep-alive.ts) nothing can be announced: the connection stays, and
 * its next answer closes it.
 */
export function announceClosing(state: AcceptorState, exchange: Exchange): void {
  if (exchange.hasBegun || exchange.closing !== Closing.keep) return;
  const { words, draining } = state.control;
  const isDraining = Atomics.load(words, draining) !== DrainStage.none;
  if (isDraining || isDegraded(state, OverloadAction.keepAliveOff)) {
    exchange.closing = Closing.announce;
  }
}
