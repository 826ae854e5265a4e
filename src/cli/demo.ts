/**
 * `sluice demo`: four simulated replicas and the gateway in front of them, ready to be called.
 *
 * Main thread. The replicas are processes of their own; they end with this one, whatever ends it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { styleText } from 'node:util';
import { Command } from 'commander';
import { ExitCode } from '../lib/exit-code.ts';
import { portNumber, wholeNumber } from './options.ts';

interface DemoFlags {
  readonly port: number;
  readonly adminPort: number;
  readonly profile: string;
  readonly replicas: number;
}

const model = 'llama-3-8b';

export function demoCommand(): Command {
  return new Command('demo')
    .description('run the gateway in front of simulated replicas, to try it out')
    .option('--port <number>', 'port of the listener', portNumber, 8080)
    .option('--admin-port <number>', 'port of the admin listener', portNumber, 9090)
    .option('--profile <name>', 'timing of the replicas', 'tokens:ttft=200ms,itl=20ms')
    .option('--replicas <count>', 'how many replicas, 1 to 64', wholeNumber(1, 64), 4)
    .action(async (flags: DemoFlags) => {
      process.exitCode = await demo(flags);
    });
}

async function demo(flags: DemoFlags): Promise<number> {
  const replicas = Array.from({ length: flags.replicas }, () => startReplica(flags.profile));
  try {
    const urls = await Promise.all(replicas.map(readyUrl));
    const { configFromObject } = await import('../config/load.ts');
    const loaded = configFromObject({
      listen: { host: '127.0.0.1', port: flags.port, max_connections: 1000 },
      admin: { port: flags.adminPort },
      models: [{ name: model, aliases: ['gpt-4o-mini'], replicas: urls.map((url) => ({ url })) }],
    });
    if (!loaded.ok) throw new Error(loaded.problems[0]?.message);
    const { runGateway } = await import('../gateway/run.ts');
    return await runGateway({
      config: loaded.config,
      onReady: ({ port, adminPort }, engine) => {
        process.stdout.write(welcome(port, adminPort, engine, flags.replicas));
      },
    });
  } catch (error) {
    process.stderr.write(`sluice demo: ${(error as Error).message}\n`);
    return ExitCode.failed;
  } finally {
    for (const replica of replicas) replica.kill('SIGTERM');
  }
}

function startReplica(profile: string): ChildProcess {
  const program = process.argv[1] as string;
  const args = ['replica', '--port', '0', '--profile', profile, '--model', model, '--json'];
  // In a group of its own: a Ctrl-C must end the gateway's drain first, then the replicas.
  return spawn(process.execPath, [...process.execArgv, program, ...args], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    detached: true,
  });
}

function readyUrl(replica: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    replica.once('error', reject);
    replica.once('exit', (code) => reject(new Error(`a replica ended early (exit ${code})`)));
    if (replica.stdout === null) return;
    createInterface({ input: replica.stdout }).once('line', (line) => {
      resolve((JSON.parse(line) as { url: string }).url);
    });
  });
}

function welcome(port: number, adminPort: number, engine: string, count: number): string {
  const base = `http://127.0.0.1:${port}`;
  const body = (stream: boolean): string =>
    JSON.stringify({
      model,
      ...(stream ? { stream } : {}),
      messages: [{ role: 'user', content: 'Say hello' }],
    });
  const curl = (stream: boolean): string =>
    `curl ${stream ? '-N ' : ''}${base}/v1/chat/completions -H 'content-type: application/json' ` +
    `-d '${body(stream)}'`;
  const bold = (text: string): string => styleText('bold', text, { stream: process.stdout });
  return [
    bold(`Sluice is ready: ${base} (${engine}), ${count} simulated replicas`),
    `  cluster ${`http://127.0.0.1:${adminPort}`}/v1/cluster   metrics /metrics   slots /admin/slots`,
    '',
    'Try it:',
    `  ${curl(false)}`,
    'Streaming:',
    `  ${curl(true)}`,
    '',
    'Ctrl-C drains and stops.',
    '',
  ].join('\n');
}
