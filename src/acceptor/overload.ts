/** What an acceptor gives up while memory or descriptors of the gateway run out. Only reads. */
import type { OverloadAction } from '../shm/control.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';

/** Whether the main thread has asked for it (gateway/overload-stages.ts). */
export function isDegraded({ control }: AcceptorState, action: OverloadAction): boolean {
  const { words, overload } = control;
  return (Atomics.load(words, overload) & action) !== 0;
}
