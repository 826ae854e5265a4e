/**
 * Places where a test may make an acceptor fail. Unreachable unless SLUICE_FAULT_HOOKS=1 was in the
 * environment when the thread started; the hook itself is a global that only test code sets.
 */
export type FaultStage = 'handler' | 'admitted' | 'later' | 'aborted' | 'timer' | 'record';

export const faultHookName = Symbol.for('sluice.acceptor.fault');

const isEnabled = process.env.SLUICE_FAULT_HOOKS === '1';

/** Calls the hook of the test, which may throw. */
export function faultPoint(stage: FaultStage): void {
  if (!isEnabled) return;
  const hook = (globalThis as Record<symbol, unknown>)[faultHookName];
  if (typeof hook === 'function') hook(stage);
}
