/**
 * Reads a config file and loads it: the one file of this folder that touches the disk.
 *
 * Main thread, at start and reload; blocks for the time of a few small reads. An unreadable file is a
 * problem like any other, never an exception.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type LoadResult, loadConfig } from './load.ts';

/** Above the largest text, so that its own message names the limit. */
const bytesMax = 16 * 1024 * 1024;

export function loadConfigFile(
  path: string,
  env: Readonly<Record<string, string | undefined>>,
): LoadResult {
  let text: string;
  try {
    text = readText(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'error';
    const message = `cannot be read (${code})`;
    return {
      ok: false,
      problems: [{ file: path, line: 0, col: 0, path: '', message, hint: undefined }],
    };
  }
  return loadConfig(text, path, env, readText);
}

/** Reads a regular file or a pipe, up to a bound, however large it claims to be. */
function readText(path: string): string {
  const fd = openSync(path, 'r');
  try {
    if (fstatSync(fd).isDirectory()) throw codedError('EISDIR');
    const chunks: Buffer[] = [];
    for (let total = 0; ; ) {
      const chunk = Buffer.allocUnsafe(65_536);
      const count = readSync(fd, chunk);
      if (count === 0) return Buffer.concat(chunks, total).toString('utf8');
      chunks.push(chunk.subarray(0, count));
      total += count;
      if (total > bytesMax) throw codedError('EFBIG');
    }
  } finally {
    closeSync(fd);
  }
}

function codedError(code: string): Error {
  return Object.assign(new Error(code), { code });
}
