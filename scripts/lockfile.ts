/**
 * `node scripts/lockfile.ts [--check]`: makes `npm ci` work from package-lock.json on every machine.
 *
 * Run after `npm install`. It mends two things npm leaves behind:
 *   - a platform package that the registry at hand did not have is missing from the lockfile, and
 *     `npm ci` then refuses the whole of it; a record with its platform is enough, as it is not fetched;
 *   - an optional package whose `engines` do not fit the machine's own Node is dropped in silence, but
 *     the Node that will run it comes with the install.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly engines?: unknown;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
}
export interface Lockfile {
  readonly packages: Readonly<Record<string, LockEntry>>;
}

const systems = 'aix android darwin freebsd linux netbsd openbsd openharmony sunos win32'.split(
  ' ',
);
const processors: Readonly<Record<string, string>> = {
  arm: 'arm',
  arm64: 'arm64',
  ia32: 'ia32',
  loong64: 'loong64',
  ppc64: 'ppc64',
  riscv64: 'riscv64',
  s390x: 's390x',
  wasm32: 'wasm32',
  x64: 'x64',
};

/** The lockfile as it should be; equal to the given one when there is nothing to mend. */
export function mendedLockfile(lock: Lockfile): Lockfile {
  const packages: Record<string, LockEntry> = {};
  for (const [path, { engines, ...entry }] of Object.entries(lock.packages)) {
    const keepsEngines = engines !== undefined && entry.optional !== true;
    packages[path] = keepsEngines ? { ...entry, engines } : entry;
  }
  for (const [path, entry] of Object.entries(lock.packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      const isLocked = `${path}/node_modules/${name}` in packages || placeOf(name) in packages;
      if (!isLocked) packages[placeOf(name)] = platformEntry(name, range, entry.dev === true);
    }
  }
  return { ...lock, packages };
}

function placeOf(name: string): string {
  return `node_modules/${name}`;
}

/** A package for one platform, known by its name alone; throws when the name does not say which. */
function platformEntry(name: string, range: string, dev: boolean): LockEntry {
  const words = (name.split('/').at(-1) ?? '').split('-');
  const os = words.filter((word) => systems.includes(word));
  const cpu = words.flatMap((word) => processors[word] ?? []);
  if (os.length + cpu.length === 0) throw new Error(`${name} is not locked and names no platform`);
  const isMusl = words.some((word) => word.startsWith('musl'));
  return {
    version: range.replace(/^[~^]/, ''),
    ...(cpu.length > 0 && { cpu }),
    ...(dev && { dev }),
    ...(isMusl && { libc: ['musl'] }),
    optional: true,
    ...(os.length > 0 && { os }),
  };
}

if (import.meta.main) {
  const path = resolve(import.meta.dirname, '../package-lock.json');
  const text = readFileSync(path, 'utf8');
  const mended = `${JSON.stringify(mendedLockfile(JSON.parse(text)), null, 2)}\n`;
  if (process.argv.includes('--check')) {
    process.exitCode = mended === text ? 0 : 1;
  } else {
    writeFileSync(path, mended);
  }
  process.stdout.write(`package-lock.json ${mended === text ? 'is complete' : 'needs mending'}\n`);
}
