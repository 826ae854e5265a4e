/**
 * The program as the package ships it: the output of `npm run build`, not the TypeScript source.
 * Stripping types costs each thread a compiler of its own, about 15 MB, and half of the start-up time.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export const mainFile = `${root}dist/main.js`;

/** Once, before anything is started from `mainFile`. Nothing of an older build stays in `dist`. */
export function buildProgram(): void {
  const env = { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1' }; // npm would leave one behind
  execFileSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit', env });
}
