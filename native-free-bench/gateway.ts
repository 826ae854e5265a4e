/**
 * Question: what does the whole gateway add to a small request, with Node alone?
 *
 * The gateway (`createGateway`, engine node) and a simulated replica that answers at once run in this
 * process, beside the node:http client that makes the load: a closed loop over keep-alive connections.
 * Baseline of the same run: the same requests straight to the replica, in turns with the gateway's.
 * Time is that between two answers. Client and replica share one event loop, which many requests at a
 * time fill: there the ratio of times tells how much the gateway holds them up, and what it costs is the
 * CPU time of the process, all threads, client and replica included: subtract the baseline's.
 */
import { Agent, request } from 'node:http';
import { createGateway } from '../src/index.ts';
import { createPrng } from '../src/lib/prng.ts';
import { startReplica } from '../src/replica/replica.ts';
import { createBench, type Measurement } from './harness.ts';

const bench = createBench('gateway', 'What does the whole gateway add, on the node engine?');
const connections = bench.parameter('connections', { smoke: 4, full: 32 });
const requests = bench.parameter('requests_per_run', { smoke: 40, full: 2000 });
const runs = bench.parameter('runs', { smoke: 3, full: 9 });
const tokens = bench.parameter('tokens', { smoke: 4, full: 16 });
const model = 'llama-3-8b';

interface Load {
  readonly name: string;
  readonly atATime: number;
  readonly requests: number;
  readonly stream: boolean;
}
const loads: readonly Load[] = [
  { name: 'whole answer, one at a time', atATime: 1, requests: requests >> 2, stream: false },
  {
    name: `whole answers, ${connections} at a time`,
    ...{ atATime: connections, requests, stream: false },
  },
  {
    name: `streams of ${tokens} tokens, ${connections} at a time`,
    ...{ atATime: connections, requests, stream: true },
  },
];

const replica = await startReplica({ profile: 'instant', model, seed: bench.seed });
const gateway = createGateway(
  {
    listen: { host: '127.0.0.1', port: 0, engine: 'node', max_connections: 1000 },
    admin: { host: '127.0.0.1', port: 0 },
    log: { level: 'warn' },
    memory: { slots: 1024 },
    models: [{ name: model, replicas: [{ url: replica.url, max_in_flight: 1024 }] }],
  },
  (reason, error) => {
    throw new Error(reason, { cause: error });
  },
);
try {
  const { port } = await gateway.listen();
  for (const load of loads) await compare(load, port);
} finally {
  await gateway.close();
  await replica.close();
}
bench.finish();

/** Runs in turns, so that a slow second of the machine meets both. */
async function compare(load: Load, gatewayPort: number): Promise<void> {
  const sides = [
    { name: 'direct', port: replica.port, samples: [] as Sample[] },
    { name: 'gateway', port: gatewayPort, samples: [] as Sample[] },
  ];
  for (const { port } of sides) await drive(load, port); // warm-up
  for (let run = 0; run < runs; run++) {
    for (const { port, samples } of sides) samples.push(await drive(load, port));
  }
  for (const kind of ['time', 'cpu'] as const) {
    let baseline: Measurement | undefined;
    for (const { name, samples } of sides) {
      const sorted = samples.map((sample) => sample[kind]).sort((a, b) => a - b);
      const nsPerOp = sorted[runs >> 1]!;
      const measurement: Measurement = {
        label: `${name}, ${load.name}${kind === 'cpu' ? ', CPU' : ''}`,
        ...{ nsPerOp, nsPerOpMin: sorted[0]!, nsPerOpMax: sorted[runs - 1]! },
        ops: runs * load.requests,
        ...(baseline && { ratio: nsPerOp / baseline.nsPerOp }),
      };
      bench.record(measurement);
      baseline ??= measurement;
    }
  }
}

/** Nanoseconds per request of one run. */
interface Sample {
  readonly time: number;
  readonly cpu: number;
}

async function drive(load: Load, port: number): Promise<Sample> {
  const random = createPrng(bench.seed);
  const agent = new Agent({ keepAlive: true, maxSockets: load.atATime });
  let left = load.requests;
  const client = async (): Promise<void> => {
    while (left-- > 0) {
      const content = `question ${random.below(1_000_000)}`;
      bench.hash(content);
      const messages = [{ role: 'user', content }];
      const body = JSON.stringify({ model, messages, max_tokens: tokens, stream: load.stream });
      check(load, await post(agent, port, body));
    }
  };
  try {
    const cpuBefore = process.cpuUsage();
    const start = process.hrtime.bigint();
    await Promise.all(Array.from({ length: load.atATime }, client));
    const time = Number(process.hrtime.bigint() - start);
    const { user, system } = process.cpuUsage(cpuBefore);
    return { time: time / load.requests, cpu: ((user + system) * 1000) / load.requests };
  } finally {
    agent.destroy();
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

function post(agent: Agent, port: number, body: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const path = '/v1/chat/completions';
    const target = { agent, host: '127.0.0.1', port, path, method: 'POST', headers };
    const sent = request(target, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

function check(load: Load, { status, text }: Answer): void {
  const isComplete = load.stream
    ? text.trimEnd().endsWith('data: [DONE]')
    : text.includes('"finish_reason"');
  if (status === 200 && isComplete) return;
  throw new Error(`${load.name}: ${status} ${text.slice(0, 200)}`);
}
