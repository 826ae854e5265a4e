/** `sluice replica`: one simulated replica. SIGTERM drains; a second signal ends it at once. */
import { Command, InvalidArgumentError } from 'commander';
import { ExitCode } from '../lib/exit-code.ts';
import { portNumber } from './options.ts';

interface ReplicaFlags {
  readonly host: string;
  readonly port: number;
  readonly controlPort: number;
  readonly profile: string;
  readonly model: string;
  readonly strictModel: boolean;
  readonly name?: string;
  readonly seed?: number;
  readonly maxNumSeqs: number;
  readonly keepAliveTimeout: string;
  readonly drainTimeout: string;
  readonly apiKey?: string;
  readonly maxLoras: number;
  readonly loraLoadTime: string;
  readonly hold: boolean;
  readonly record: boolean;
  readonly fault: string[];
  readonly json: boolean;
}

export function replicaCommand(): Command {
  return new Command('replica')
    .description('run one simulated replica: OpenAI HTTP, vLLM metric names, fault switches')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes a free one', portNumber, 0)
    .option('--control-port <port>', 'port of /control, /stats, /ledger and /gate', portNumber, 0)
    .option(
      '--profile <profile>',
      'instant, uniform:8ms-24ms, tokens:ttft=200ms,itl=20ms, engine:8b-h100 or engine:70b-h100x4,speed=10',
      'instant',
    )
    .option('--model <name>', 'model it serves', 'sluice-sim')
    .option('--strict-model', 'answer 404 for any other model', false)
    .option('--name <name>', 'name that prompt tags address; the port without one')
    .option('--seed <number>', 'seed of the delays; the port without one', whole)
    .option('--max-num-seqs <count>', 'requests that run at a time', whole, 1024)
    .option('--keep-alive-timeout <duration>', 'idle connections are closed after this', '5s')
    .option('--drain-timeout <duration>', 'longest wait for requests in flight on SIGTERM', '30s')
    .option('--api-key <key>', 'key that /v1 routes ask for')
    .option('--max-loras <count>', 'LoRA adapters it loads when asked to; 0: none', whole, 0)
    .option('--lora-load-time <duration>', 'time that loading one takes', '0s')
    .option('--hold', 'hold every request until released', false)
    .option('--record', 'keep heads and body checksums of requests in the ledger', false)
    .option('--fault <faults>', 'faults of every request; repeatable', collect, [])
    .option('--json', 'print the ready line as JSON', false)
    .action(run);
}

async function run(flags: ReplicaFlags): Promise<void> {
  const { startReplica } = await import('../replica/replica.ts');
  const { maxNumSeqsProblem, parseProfile } = await import('../replica/profile.ts');
  const { readFaults } = await import('../replica/faults.ts');
  const { parseDuration } = await import('../lib/quantity.ts');
  const keepAliveTimeoutMs = parseDuration(flags.keepAliveTimeout);
  const drainTimeoutMs = parseDuration(flags.drainTimeout);
  if (keepAliveTimeoutMs === undefined) return refuse('--keep-alive-timeout is no duration');
  if (drainTimeoutMs === undefined) return refuse('--drain-timeout is no duration');
  const loadMs = parseDuration(flags.loraLoadTime);
  if (loadMs === undefined) return refuse('--lora-load-time is no duration');
  const profile = parseProfile(flags.profile);
  if (typeof profile === 'string') return refuse(profile);
  const tooMany = maxNumSeqsProblem(profile, flags.maxNumSeqs);
  if (tooMany !== undefined) return refuse(tooMany);
  for (const fault of flags.fault) {
    const problem = readFaults(fault, {});
    if (problem !== undefined) return refuse(problem);
  }
  const { name, seed, apiKey } = flags;
  const replica = await startReplica({
    host: flags.host,
    port: flags.port,
    controlPort: flags.controlPort,
    profile: flags.profile,
    model: flags.model,
    strictModel: flags.strictModel,
    maxNumSeqs: flags.maxNumSeqs,
    keepAliveTimeoutMs,
    lora: { max: flags.maxLoras, loadMs },
    hold: flags.hold,
    recordRequests: flags.record,
    faults: flags.fault.map((fault) => ({ fault })),
    onKill: () => process.kill(process.pid, 'SIGKILL'),
    ...(name === undefined ? {} : { name }),
    ...(seed === undefined ? {} : { seed }),
    ...(apiKey === undefined ? {} : { apiKey }),
  });
  announce(flags, replica.port, replica.controlPort);
  let signals = 0;
  const stop = (): void => {
    if (++signals > 1) process.exit(ExitCode.failed);
    void replica.drain(drainTimeoutMs).then(() => process.exit(ExitCode.ok));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // Started by `sluice demo`: it ends with its parent, however that ends.
  process.once('disconnect', () => {
    if (signals === 0) stop();
  });
}

function announce(flags: ReplicaFlags, port: number, controlPort: number): void {
  const url = `http://${flags.host}:${port}`;
  const { profile, model } = flags;
  const facts = {
    ready: true,
    url,
    port,
    control_port: controlPort,
    pid: process.pid,
    profile,
    model,
  };
  const line = `replica ready on ${url} (control port ${controlPort}, profile ${profile}, model ${model})`;
  process.stdout.write(`${flags.json ? JSON.stringify(facts) : line}\n`);
}

function refuse(message: string): void {
  process.stderr.write(`sluice replica: ${message}\n`);
  process.exitCode = ExitCode.usage;
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

function whole(value: string): number {
  if (!/^\d{1,9}$/.test(value)) throw new InvalidArgumentError('must be a whole number');
  return Number(value);
}
