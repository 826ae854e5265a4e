/**
 * `npm run profile`: the gateway under ten seconds of load, with one CPU profile per thread.
 *
 * `npm run profile -- --help` names the options. Without --clinic it prints where each thread's time went; the files open in any viewer of
 * `.cpuprofile`. clinic writes one HTML page instead; it sees the main thread only, so it shows
 * event-loop health rather than the path of a request.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { BenchContext, withBench } from './bench/bench-context.ts';
import { type ChildOptions, freePorts } from './bench/children.ts';
import { measure } from './bench/measure.ts';
import { buildProgram, mainFile } from './bench/program.ts';
import { startReplicas } from './bench/replicas.ts';
import { gatewayConfig, type Target } from './bench/targets.ts';
import { type ClinicTool, clinicEnv, clinicTools, installClinic } from './profile/clinic.ts';
import { type CpuProfile, readThread, type ThreadProfile } from './profile/cpu-profile.ts';

interface Flags {
  readonly stream: boolean;
  readonly continuation: string;
  readonly seconds: number;
  readonly clinic?: ClinicTool;
  readonly out: string;
}

const flags = new Command('npm run profile --')
  .description('Profiles the gateway under load, one CPU profile per thread.')
  .option('--stream', 'ask for streams', false)
  .addOption(
    new Option('--continuation <mode>', 'of the model')
      .choices(['off', 'text', 'token_ids'])
      .default('off'),
  )
  .option('--seconds <n>', 'how long, 1 to 600', secondsOf, 10)
  .addOption(new Option('--clinic <tool>', 'one HTML page of clinic instead').choices(clinicTools))
  .option('--out <folder>', 'where the profiles go', 'artifacts/profile')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse()
  .opts<Flags>();

const topMax = 10;
/** clinic reads its traces and draws after the process has ended. */
const clinicStopMs = 300_000;

process.exitCode = await main();

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 600)) throw new InvalidArgumentError('1 to 600.');
  return seconds;
}

async function main(): Promise<number> {
  const { clinic: tool, seconds } = flags;
  const clinic = tool && { tool, script: installClinic() };
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const bench = new BenchContext(false, 1, new Set(), say);
  // Profiles of an earlier run would be read as this one's.
  rmSync(flags.out, { recursive: true, force: true });
  mkdirSync(flags.out, { recursive: true });
  await withBench(bench, () => profile(bench, seconds * 1000, clinic));
  return clinic === undefined ? printThreads() : printPages();
}

interface Clinic {
  readonly tool: string;
  readonly script: string;
}

async function profile(
  bench: BenchContext,
  durationMs: number,
  clinic: Clinic | undefined,
): Promise<void> {
  buildProgram();
  const fleet = await startReplicas(
    bench,
    2,
    flags.stream ? 'tokens:ttft=20ms,itl=20ms' : 'instant',
  );
  const [port, adminPort] = (await freePorts(2)) as [number, number];
  const file = join(bench.folder, 'sluice.yaml');
  const changes = { model: { continuation: flags.continuation } };
  const config = gatewayConfig(fleet, port, adminPort, 'least_in_flight', changes);
  writeFileSync(file, JSON.stringify(config));
  const serve = [mainFile, 'serve', '--config', file, '--no-supervisor'];
  const options: ChildOptions = {
    readyUrl: `http://127.0.0.1:${adminPort}/readyz`,
    // clinic waits for its child, and the child for SIGINT: both get it.
    ...(clinic && { env: clinicEnv, group: true, stopSignal: 'SIGINT', stopMs: clinicStopMs }),
    ...(!clinic && { stopMs: 30_000 }),
  };
  const args =
    clinic === undefined
      ? ['--cpu-prof', `--cpu-prof-dir=${flags.out}`, ...serve]
      : [clinic.script, clinic.tool, '--dest', flags.out, '--open=false', '--', 'node', ...serve];
  const gateway = await bench.children.start('gateway', process.execPath, args, options);
  const target: Target = {
    name: 'gateway',
    ports: [port],
    children: [gateway],
    adminUrl: `http://127.0.0.1:${adminPort}`,
  };
  const shape = { warmupMs: 500, durationMs, connections: flags.stream ? 500 : 64 };
  const { report } = await measure(
    bench,
    target,
    flags.stream ? { ...shape, stream: true, outputTokens: 100 } : shape,
  );
  process.stdout.write(
    `${report.completed} requests, ${report.failed} failed, ` +
      `${report.request_throughput.toFixed(0)} requests/s while profiled\n`,
  );
  await gateway.stop();
}

function printThreads(): number {
  const files = readdirSync(flags.out).filter((name) => name.endsWith('.cpuprofile'));
  for (const name of files.sort()) {
    const content: CpuProfile = JSON.parse(readFileSync(join(flags.out, name), 'utf8'));
    process.stdout.write(`\n${threadText(join(flags.out, name), readThread(content, topMax))}\n`);
  }
  if (files.length > 0) return 0;
  process.stderr.write('the gateway wrote no profile\n');
  return 1;
}

function threadText(file: string, { thread, busyUs, totalUs, top }: ThreadProfile): string {
  const busy = ((busyUs / totalUs) * 100).toFixed(1);
  const lines = [`${thread}: busy ${busy}% of ${(totalUs / 1e6).toFixed(1)} s   ${file}`];
  for (const { where, us, share } of top) {
    const percent = `${(share * 100).toFixed(1)}%`.padStart(7);
    lines.push(`${percent} ${(us / 1000).toFixed(0).padStart(7)} ms  ${where}`);
  }
  return lines.join('\n');
}

function printPages(): number {
  const pages = readdirSync(flags.out, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.html'),
  );
  for (const page of pages) process.stdout.write(`${join(flags.out, page)}\n`);
  if (pages.length > 0) return 0;
  process.stderr.write('clinic wrote no page\n');
  return 1;
}
