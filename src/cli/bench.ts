/** `sluice bench`: open-loop LLM load against one target; figures named as in `vllm bench serve`. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { LoadPlan } from '../load/generator.ts';
import type { Goodput } from '../load/load-metrics.ts';

interface BenchOptions {
  readonly target: URL;
  readonly endpoint: string;
  readonly model: string;
  readonly stream?: true;
  readonly requestRate: number;
  readonly burstiness: number;
  readonly maxConcurrency?: number;
  readonly connections: number;
  readonly duration?: number;
  readonly numPrompts?: number;
  readonly warmup?: number;
  readonly timeout: number;
  readonly randomInputLen: number;
  readonly randomOutputLen: number;
  readonly promptBytes: number;
  readonly ignoreEos?: true;
  readonly seed: number;
  readonly goodput?: Goodput;
  readonly apiKey?: string;
  readonly json?: true;
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('send LLM load; latency counts from the intended send time')
    .requiredOption('--target <url>', 'base URL, http only', httpUrl)
    .option('--endpoint <path>', 'path of the requests', path, '/v1/chat/completions')
    .option('--model <name>', 'model of the requests', 'llama-3-8b')
    .option('--stream', 'ask for event streams and check that they end')
    .addOption(
      new Option('--request-rate <rps>', 'arrivals per second; inf is a closed loop')
        .argParser(rate)
        .default(Infinity, 'inf'),
    )
    .option('--burstiness <shape>', '1 Poisson, less is burstier, inf constant', rate, 1)
    .option('--max-concurrency <n>', 'requests in flight at most', count)
    .option('--connections <n>', 'keep-alive connections', count, 256)
    .option('--duration <time>', 'measured time (default: 60s)', durationMs)
    .option('--num-prompts <n>', 'measured requests, instead of a duration', count)
    .option('--warmup <time>', 'sent but not measured (default: 1s, none with a count)', durationMs)
    .addOption(
      new Option('--timeout <time>', 'limit of the wait for a connection, and of the answer')
        .argParser(durationMs)
        .default(60_000, '60s'),
    )
    .option('--random-input-len <tokens>', 'random prompt of about so many tokens', count, 0)
    .option('--random-output-len <tokens>', 'max_tokens', count, 16)
    .option('--prompt-bytes <n>', 'random prompt of exactly so many bytes', count, 0)
    .option('--ignore-eos', 'send ignore_eos and require every answer at full length')
    .option('--seed <n>', 'arrivals and prompts', seed, 1)
    .addOption(
      new Option('--goodput <limits...>', 'limits in ms: ttft:200 tpot:50 e2el:1000').argParser(
        goodput,
      ),
    )
    .option('--api-key <key>', 'sent as a bearer token')
    .option('--json', 'print JSON with the keys of vllm bench serve')
    .action(run);
}

async function run(options: BenchOptions): Promise<void> {
  const { runLoad } = await import('../load/generator.ts');
  const { loadReport, progressLine, reportText } = await import('../load/report.ts');
  const plan = await loadPlan(options);
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const result = await runLoad(plan, {
    signal: stop.signal,
    onProgress: (progress) => process.stderr.write(`${progressLine(progress)}\n`),
  });
  process.off('SIGINT', onSignal);
  process.off('SIGTERM', onSignal);
  const report = loadReport(plan, result);
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : reportText(report));
  if (report.failed > 0 || report.completed === 0) process.exitCode = 1;
}

async function loadPlan(options: BenchOptions): Promise<LoadPlan> {
  const { createRequestTemplate } = await import('../load/request-template.ts');
  const { target, connections } = options;
  const counted = options.numPrompts !== undefined && options.duration === undefined;
  const headers = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` };
  const template = createRequestTemplate(
    {
      endpoint: options.endpoint,
      model: options.model,
      stream: options.stream === true,
      inputTokens: options.randomInputLen,
      promptBytes: options.promptBytes,
      outputTokens: options.randomOutputLen,
      ignoreEos: options.ignoreEos === true,
      seed: options.seed,
    },
    target.host,
    headers,
  );
  return {
    // URL keeps the brackets of an IPv6 address; a socket does not want them.
    targets: [{ host: target.hostname.replace(/^\[|\]$/g, ''), port: Number(target.port || 80) }],
    template,
    stream: options.stream === true,
    requestRate: options.requestRate,
    burstiness: options.burstiness,
    connections,
    concurrencyMax: options.maxConcurrency ?? connections,
    durationMs: counted ? Number.POSITIVE_INFINITY : (options.duration ?? 60_000),
    requestsMax: options.numPrompts ?? Number.POSITIVE_INFINITY,
    warmupMs: options.warmup ?? (counted ? 0 : 1000),
    timeoutMs: options.timeout,
    seed: options.seed,
    // The time keeps two runs of one seed apart in the replicas' counts.
    idPrefix: `bench-${Date.now().toString(36)}-${process.pid.toString(36)}`,
    expectTokens: options.ignoreEos ? options.randomOutputLen : -1,
    goodput: options.goodput ?? {},
  };
}

function httpUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || url.protocol !== 'http:') {
    throw new InvalidArgumentError('expected a URL such as http://127.0.0.1:8080');
  }
  return url;
}

function path(text: string): string {
  if (!/^\/[!-~]*$/.test(text))
    throw new InvalidArgumentError('expected a path such as /v1/completions');
  return text;
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value > 1e9) {
    throw new InvalidArgumentError('expected a whole number from 1');
  }
  return value;
}

function seed(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('expected a whole number');
  return value;
}

function rate(text: string): number {
  const value = text === 'inf' ? Infinity : Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('expected a number above 0, or inf');
  return value;
}

function durationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text);
  if (match === null) throw new InvalidArgumentError('expected a time such as 500ms, 60s or 2m');
  const unit = { ms: 1, s: 1000, m: 60_000 }[match[2] as 'ms' | 's' | 'm'];
  return Number(match[1]) * unit;
}

function goodput(text: string, before: Goodput = {}): Goodput {
  const match = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(text);
  if (match === null) throw new InvalidArgumentError('expected limits such as ttft:200 tpot:50');
  return { ...before, [match[1] as string]: Number(match[2]) };
}
