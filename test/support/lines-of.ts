/** Lines of a file that others write and rename meanwhile. */
import { readFileSync } from 'node:fs';

/** As split at line breaks, so the last is what has no end yet; none of a file that has just been renamed. */
export function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
