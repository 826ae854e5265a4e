/** Waits for a state that can only be asked for, never told of. */
import { setTimeout as sleep } from 'node:timers/promises';

const pollMs = 5;

/** Resolves once `wanted` holds; fails by name when it does not within `limitMs`. */
export async function eventually(
  name: string,
  wanted: () => Promise<boolean> | boolean,
  limitMs = 5000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await wanted())) {
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${name}`);
    await sleep(pollMs);
  }
}
