/**
 * Named places where a test makes a thread fail. Any thread; one hook per thread.
 *
 * Without a hook a place costs one comparison. Only shm/fault-hooks.ts sets one, and it is imported
 * only when SLUICE_FAULT_HOOKS=1 was in the environment of the process at its start.
 */
export const faultStages = {
  acceptor: ['handler', 'admitted', 'later', 'aborted', 'timer', 'record'],
  /** Taken from the ring; chosen a replica; the slot is dispatched and its record is not published. */
  scheduler: ['popped', 'picked', 'dispatched'],
  /**
   * The last two: all of an answer is in the ring but the record of its end; the slot is settled and
   * the record that says so is not published.
   */
  forwarder: ['connecting', 'sent', 'headers', 'mid-event', 'all-written', 'done-before-release'],
  /**
   * Of a forwarder as well, beside the ordinary course: a reply is unwanted and nothing of that is written down; a
   * slot is with the scheduler again, which has not been told.
   */
  giveBack: ['judged', 'given-back'],
  /** A question is taken and the store not asked yet. */
  limiter: ['asked'],
} as const;
export type FaultStage = (typeof faultStages)[keyof typeof faultStages][number];

let hook: ((stage: FaultStage) => void) | undefined;

export function faultPoint(stage: FaultStage): void {
  if (hook !== undefined) hook(stage);
}

/** The hook may throw, or never return. */
export function setFaultHook(act: (stage: FaultStage) => void): void {
  hook = act;
}
