/**
 * clinic lives in an install of its own under .cache/tools, made when it is first asked for: it
 * brings some 700 packages that the gateway has no use for. NO_INSIGHT keeps it from asking a
 * question that nobody answers, which ends it without a word.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const clinicTools = ['doctor', 'flame', 'bubbleprof'] as const;
export type ClinicTool = (typeof clinicTools)[number];

export const clinicEnv = { NO_INSIGHT: '1', NO_UPDATE_NOTIFIER: '1' };

const version = '13.0.0';
const folder = '.cache/tools';

/** Path of clinic's script; installs it when it is missing. */
export function installClinic(): string {
  const script = join(folder, 'node_modules/clinic/bin.js');
  if (existsSync(script)) return script;
  mkdirSync(folder, { recursive: true });
  const manifest = { name: 'sluice-tools', private: true, dependencies: { clinic: version } };
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  process.stderr.write(`installing clinic ${version} into ${folder}\n`);
  execFileSync('npm', ['install', '--no-audit', '--no-fund'], {
    cwd: folder,
    env: { ...process.env, ...clinicEnv },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return script;
}
