/** What a test opens is closed after it, whatever happened. */
import { afterEach } from 'vitest';

/** A list whose entries are closed after each test. */
export function closedAfterEach(): { close(): Promise<void> }[] {
  const closing: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const one of closing.splice(0)) await one.close();
  });
  return closing;
}
