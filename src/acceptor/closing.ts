/** Which connections end with their answer, though their clients would keep them. Acceptor threads. */
import { DrainStage } from '../shm/control.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { Closing, type Exchange } from './listener.ts';

/** While the gateway drains, every answer says that its connection closes. Call before its head. */
export function announceClosing({ control }: AcceptorState, exchange: Exchange): void {
  if (exchange.closing !== Closing.keep) return;
  const { words, draining } = control;
  if (Atomics.load(words, draining) !== DrainStage.none) exchange.closing = Closing.announce;
}
