import { expect, test } from 'vitest';
import { type Machine, prepareServers } from '../../../scripts/test/servers.ts';

interface Options {
  readonly installed?: readonly string[];
  readonly canInstall?: boolean;
  /** What each apt-get command does; installs its packages' commands when it succeeds. */
  readonly succeeds?: (command: string, calls: number) => boolean;
}

const all = 'haproxy nginx redis-server redis-sentinel nats-server kcat promtool'.split(' ');
/** Every server but these is there. */
const without = (...missing: readonly string[]): string[] =>
  all.filter((name) => !missing.includes(name));

const commandOf: Readonly<Record<string, string>> = { prometheus: 'promtool' };

function machine({ installed = [], canInstall = true, succeeds = () => true }: Options) {
  const commands = new Set(installed);
  const calls: string[] = [];
  const described: Machine = {
    has: (command) => commands.has(command),
    canInstall,
    aptGet([command = '', ...rest]) {
      calls.push(command);
      const done = succeeds(command, calls.length);
      if (done && command === 'install') {
        for (const name of rest) commands.add(commandOf[name] ?? name);
      }
      return done;
    },
  };
  return { machine: described, calls };
}

test('nothing is done or said when every server is there', () => {
  const { machine: full, calls } = machine({ installed: all });
  expect(prepareServers(full)).toEqual([]);
  expect(calls).toEqual([]);
});

test('only what is missing is installed', () => {
  const { machine: partial, calls } = machine({ installed: without('haproxy', 'promtool') });
  expect(prepareServers(partial)).toEqual(['installing haproxy, prometheus for the tests']);
  expect(calls).toEqual(['install']);
});

test('package lists are fetched when a first install fails', () => {
  const { machine: fresh, calls } = machine({ succeeds: (_, call) => call > 1 });
  expect(prepareServers(fresh)).toEqual([
    'installing haproxy, nginx, redis-server, redis-sentinel, nats-server, kcat, prometheus for the tests',
  ]);
  expect(calls).toEqual(['install', 'update', 'install']);
});

test('what cannot be installed is named', () => {
  const { machine: offline, calls } = machine({ succeeds: () => false });
  expect(prepareServers(offline)).toEqual([
    'installing haproxy, nginx, redis-server, redis-sentinel, nats-server, kcat, prometheus for the tests',
    'skipping comparison with HAProxy: haproxy is not installed',
    'skipping comparison with nginx: nginx is not installed',
    'skipping limits and usage in Redis: redis-server is not installed',
    'skipping limits behind Sentinel: redis-sentinel is not installed',
    'skipping usage in NATS JetStream: nats-server is not installed',
    'skipping usage in Kafka: kcat is not installed',
    'skipping promtool check metrics: promtool is not installed',
  ]);
  expect(calls).toEqual(['install', 'update']);
});

test('a machine that is not ours to change is left alone', () => {
  const { machine: foreign, calls } = machine({
    installed: without('haproxy', 'promtool'),
    canInstall: false,
  });
  expect(prepareServers(foreign)).toEqual([
    'skipping comparison with HAProxy: haproxy is not installed',
    'skipping promtool check metrics: promtool is not installed',
  ]);
  expect(calls).toEqual([]);
});
