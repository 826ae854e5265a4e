/**
 * The servers some tests run against: found, or installed where that is safe, or named as missing.
 *
 * Only root on Debian installs, and only Debian's own packages. A test that needs an absent server
 * skips itself; the line printed here says which.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

interface TestServer {
  readonly command: string;
  readonly debianPackage: string;
  readonly usedFor: string;
}

const testServers: readonly TestServer[] = [
  { command: 'haproxy', debianPackage: 'haproxy', usedFor: 'comparison with HAProxy' },
  { command: 'nginx', debianPackage: 'nginx', usedFor: 'comparison with nginx' },
  { command: 'redis-server', debianPackage: 'redis-server', usedFor: 'limits and usage in Redis' },
  { command: 'redis-sentinel', debianPackage: 'redis-sentinel', usedFor: 'limits behind Sentinel' },
  { command: 'nats-server', debianPackage: 'nats-server', usedFor: 'usage in NATS JetStream' },
  { command: 'kcat', debianPackage: 'kcat', usedFor: 'usage in Kafka' },
  { command: 'promtool', debianPackage: 'prometheus', usedFor: 'promtool check metrics' },
];

const installTimeoutMs = 180_000;

export interface Machine {
  /** Whether a command is on the path. */
  has(command: string): boolean;
  readonly canInstall: boolean;
  /** Runs one apt-get command; true when it succeeded. */
  aptGet(args: readonly string[]): boolean;
}

/** Installs what is missing where it can; returns the lines that say what was done or is skipped. */
export function prepareServers(machine: Machine): string[] {
  const missing = testServers.filter(({ command }) => !machine.has(command));
  if (missing.length === 0) return [];
  const lines: string[] = [];
  if (machine.canInstall) {
    const packages = missing.map(({ debianPackage }) => debianPackage);
    lines.push(`installing ${packages.join(', ')} for the tests`);
    const install = ['install', '-y', '-q', '--no-install-recommends', ...packages];
    // A fresh image has no package lists; an old one may know them, and then no update is needed.
    if (!machine.aptGet(install) && machine.aptGet(['update', '-q'])) machine.aptGet(install);
  }
  for (const { command, usedFor } of missing) {
    if (!machine.has(command)) lines.push(`skipping ${usedFor}: ${command} is not installed`);
  }
  return lines;
}

export const thisMachine: Machine = {
  // Debian keeps servers in sbin, which is not on every user's path.
  has: (command) =>
    [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'].some((folder) =>
      isExecutable(join(folder, command)),
    ),
  canInstall:
    process.getuid?.() === 0 && existsSync('/etc/debian_version') && existsSync('/usr/bin/apt-get'),
  aptGet: (args) =>
    spawnSync('apt-get', args, {
      // RUNLEVEL=1 keeps packages from starting their service and taking port 80.
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
      stdio: 'ignore',
      timeout: installTimeoutMs,
    }).status === 0,
};

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
