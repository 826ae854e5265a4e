/** Waits for a state that can only be asked for, never told of. */
import { setTimeout as sleep } from 'node:timers/promises';

/** From one question to the next, growing, because long waits must not cost the machine. */
const pollMs = 5;
const pollGrowth = 1.2;
const pollMsMax = 50;

/** Resolves once `wanted` holds; fails by name when it does not within `limitMs`. */
export async function eventually(
  name: string,
  wanted: () => Promise<boolean> | boolean,
  limitMs = 5000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (let pause = pollMs; !(await wanted()); pause = Math.min(pause * pollGrowth, pollMsMax)) {
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${name}`);
    await sleep(pause);
  }
}
