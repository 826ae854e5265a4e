/**
 * `sluice serve`: the gateway from a config file, or from --replica and --model without one.
 *
 * Main thread. With the supervisor (the default) this process only starts and restarts a second one
 * that runs the gateway. A bad config exits with 2 before anything is started.
 */
import { existsSync } from 'node:fs';
import { styleText } from 'node:util';
import { Command, Option } from 'commander';
import type { LoadResult } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { ExitCode } from '../lib/exit-code.ts';
import { type Beside, besideVariable } from '../lib/process-messages.ts';
import { portNumber } from './options.ts';

interface ServeFlags {
  readonly config?: string;
  readonly replica: readonly string[];
  readonly model?: string;
  readonly port?: number;
  readonly adminPort?: number;
  readonly watch: boolean;
  readonly supervisor: boolean;
  readonly json: boolean;
  /** Of a process that a supervisor has started: alone, or beside one that serves. */
  readonly child?: 'alone' | 'beside';
}

const defaultFile = './sluice.yaml';

export function serveCommand(): Command {
  return new Command('serve')
    .description('run the gateway')
    .option('--config <file>', `config file (default: ${defaultFile})`)
    .option('--replica <url>', 'a replica; repeat for more; needs --model', collect, [])
    .option('--model <name>', 'the model the replicas serve')
    .option('--port <number>', 'port of the listener, over the config', portNumber)
    .option('--admin-port <number>', 'port of the admin listener, over the config', portNumber)
    .option('--watch', 'reload when the config file changes, as on SIGHUP', false)
    .option('--no-supervisor', 'run the gateway in this process, without restarts')
    .option('--json', 'print the ready line as JSON', false)
    .addOption(new Option('--child <how>').choices(['alone', 'beside']).hideHelp())
    .action(async (flags: ServeFlags) => {
      process.exitCode = await serve(flags);
    });
}

async function serve(flags: ServeFlags): Promise<number> {
  // Kept for whoever listens for it later; its default would end a service that is being started.
  let hungUp = false;
  process.once('SIGHUP', () => {
    hungUp = true;
  });
  process.on('SIGUSR2', () => {}); // likewise; what it asks for is begun by whoever listens later
  const usage = usageProblem(flags);
  if (usage !== undefined) return complain([usage]);
  const watch = flags.watch && !flags.supervisor ? await watchOf(flags) : undefined;
  const loaded = await loadAtStart(flags);
  if (!loaded.ok) {
    const { formatProblem } = await import('../config/problems.ts');
    return complain(loaded.problems.map(formatProblem));
  }
  if (flags.child === undefined && loaded.warnings.length > 0) {
    const { formatProblem } = await import('../config/problems.ts');
    for (const warning of loaded.warnings) warn(`${formatProblem(warning)} (warning)`);
  }
  if (flags.supervisor) {
    const { supervise } = await import('../supervisor/supervisor.ts');
    const args = process.argv.slice(2);
    return supervise({ args, say: (text) => process.stderr.write(`sluice: ${text}\n`) });
  }
  const { runGateway } = await import('../gateway/run.ts');
  const { config } = loaded;
  const running = runGateway({
    config: withPorts(config, flags),
    ...(flags.replica.length === 0 && { reload: () => reload(flags) }),
    ...(watch && { watch }),
    isSupervised: flags.child !== undefined,
    ...(flags.child !== undefined && besideOf(flags.child)),
    onReady: ({ port, adminPort }, engine) => {
      const scheme = config.listen.tls === undefined ? 'http' : 'https';
      const url = `${scheme}://${hostForUrl(config.listen.host)}:${port}`;
      const adminUrl = `http://${hostForUrl(config.admin.host)}:${adminPort}`;
      const line = flags.json
        ? JSON.stringify({ ready: true, url, admin: adminUrl, engine })
        : `sluice is ready: ${url} (${engine}), admin ${adminUrl}`;
      process.stdout.write(`${line}\n`);
    },
  });
  if (hungUp) process.emit('SIGHUP');
  return running.catch((error: Error) => {
    complain([`sluice: ${error.message}`]);
    return ExitCode.failed;
  });
}

/** What the supervisor knows of another process; an older one says nothing, or less. */
function besideOf(child: 'alone' | 'beside') {
  const text = process.env[besideVariable] ?? '';
  const { listen, admin, sharesFiles } = text === '' ? {} : (JSON.parse(text) as Beside);
  const takesOver = { ...(listen && { listen }), ...(admin && { admin }) };
  return { sharesFiles: sharesFiles === true, ...(child === 'beside' && { takesOver }) };
}

async function watchOf(flags: ServeFlags) {
  const { ConfigWatch } = await import('../gateway/config-watch.ts');
  const watch = new ConfigWatch(flags.config ?? defaultFile);
  await watch.mark();
  return watch;
}

function usageProblem(flags: ServeFlags): string | undefined {
  if (flags.replica.length === 0) {
    if (flags.model !== undefined) return '--model needs at least one --replica';
    const file = flags.config ?? defaultFile;
    if (flags.config === undefined && !existsSync(file)) {
      return `no ${file} here; give --config FILE, or --replica URL --model NAME, or try "sluice demo"`;
    }
    return undefined;
  }
  if (flags.watch) return '--watch needs a config file';
  if (flags.config !== undefined) return 'give either --config or --replica, not both';
  if (flags.model === undefined) return '--replica needs --model NAME';
  return undefined;
}

async function load(flags: ServeFlags): Promise<LoadResult> {
  if (flags.replica.length > 0) {
    const { configFromFlags } = await import('../config/load.ts');
    return configFromFlags({ replicas: flags.replica, model: flags.model ?? '' });
  }
  const { loadConfigFile } = await import('../config/file.ts');
  return loadConfigFile(flags.config ?? defaultFile, process.env);
}

/** With a look at what a gateway would only find at work; of several processes the first one looks. */
async function loadAtStart(flags: ServeFlags): Promise<LoadResult> {
  const loaded = await load(flags);
  if (flags.child !== undefined) return loaded;
  const { withTokenizers } = await import('./tokenizers.ts');
  return withTokenizers(loaded);
}

async function reload(flags: ServeFlags): Promise<LoadResult> {
  const loaded = await load(flags);
  return loaded.ok ? { ...loaded, config: withPorts(loaded.config, flags) } : loaded;
}

/** The ports of the command line win over those of the file. */
function withPorts(config: Config, flags: ServeFlags): Config {
  const listen = { ...config.listen, port: flags.port ?? config.listen.port };
  const admin = { ...config.admin, port: flags.adminPort ?? config.admin.port };
  return { ...config, listen, admin };
}

function complain(lines: readonly string[]): number {
  for (const line of lines) {
    process.stderr.write(`${styleText('red', line, { stream: process.stderr })}\n`);
  }
  return ExitCode.usage;
}

function warn(line: string): void {
  process.stderr.write(`${styleText('yellow', line, { stream: process.stderr })}\n`);
}

/** A wildcard address is no address to call; IPv6 needs brackets. */
function hostForUrl(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}

function collect(value: string, list: readonly string[]): readonly string[] {
  return [...list, value];
}
