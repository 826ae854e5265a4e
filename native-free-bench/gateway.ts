/**
 * Question: what does the whole gateway add to a small request, with Node alone?
 *
 * The gateway (`createGateway`, engine node) and a simulated replica that answers at once run in this
 * process, beside the node:http client that makes the load: a closed loop over keep-alive connections.
 * Replica, client and the gateway's main thread share one event loop, so its share is in every row.
 * Baseline of the same run: the same requests straight to the replica, in turns with the gateway's.
 * `requests at a time` gives the time between two answers, `one at a time` the latency. Every answer
 * is read to its end and checked; nothing else is subtracted.
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
    { label: `direct, ${load.name}`, port: replica.port, samples: [] as number[] },
    { label: `gateway, ${load.name}`, port: gatewayPort, samples: [] as number[] },
  ];
  for (const { port } of sides) await drive(load, port); // warm-up
  for (let run = 0; run < runs; run++) {
    for (const { port, samples } of sides) samples.push(await drive(load, port));
  }
  let baseline: Measurement | undefined;
  for (const { label, samples } of sides) {
    samples.sort((a, b) => a - b);
    const nsPerOp = samples[runs >> 1]!;
    const measurement: Measurement = {
      ...{ label, nsPerOp, nsPerOpMin: samples[0]!, nsPerOpMax: samples[runs - 1]! },
      ops: runs * load.requests,
      ...(baseline && { ratio: nsPerOp / baseline.nsPerOp }),
    };
    bench.record(measurement);
    baseline ??= measurement;
  }
}

/** One run; nanoseconds of it per request. */
async function drive(load: Load, port: number): Promise<number> {
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
    const start = process.hrtime.bigint();
    await Promise.all(Array.from({ length: load.atATime }, client));
    return Number(process.hrtime.bigint() - start) / load.requests;
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
