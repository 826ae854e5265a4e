/**
 * Waits for a turn of the event loop in which nobody came. Any thread with a loop; does not block it.
 *
 * For the close of a listening socket: the kernel resets what stands in its queue at that moment. A turn
 * begins with a look at every socket, so behind a short one in which nobody came the queue was empty
 * less than `quietMs` ago. Kept as small as JavaScript can: what comes within it, or is in the middle of
 * its handshake, is lost unless the kernel moves it to another listener (docs/operations.md).
 */

/** An idle turn takes a few microseconds; one with work in it more, and the queue may have filled. */
const quietMs = 0.05;
/**
 * From try to try. Behind a sleep, because a thread that spins is put aside by the kernel at some moment
 * of its choice (docs/adr/0009-restart-by-overlap.md has what each way loses).
 */
const pauseMs = 2;
/** A loop so busy that no turn is short is not waited for longer. */
const waitMsMax = 1000;

/** `arrivals` counts what has come so far. Whoever awaits it is still in the turn and must act at once. */
export function quietTurn(arrivals: () => number): Promise<void> {
  const limit = performance.now() + waitMsMax;
  let seen = 0;
  let began = 0;
  return new Promise((resolve) => {
    const end = (): void => {
      const now = performance.now();
      if ((arrivals() === seen && now - began < quietMs) || now > limit) resolve();
      else setTimeout(awake, pauseMs);
    };
    const begin = (): void => {
      seen = arrivals();
      began = performance.now();
      setImmediate(end);
    };
    const awake = (): void => void setImmediate(begin);
    setTimeout(awake, pauseMs);
  });
}
