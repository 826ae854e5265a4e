/**
 * Question: what do traces of 1 % of the requests cost a request?
 *
 * Included, as processor time in alternating turns: the choice, and the header that says that nobody
 * traces, from the acceptor into the head that a replica is sent; of a request that is traced its two
 * records, its three spans and their export, with the part of the server that takes the bytes. Baseline
 * in the same run: the head without traces. Not included: ten wake-ups of the tracer a second.
 * `npm run bench -- --only tracing` has whole processes, and the noise of them.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pushTraceContext, Tracing } from '../src/acceptor/tracing.ts';
import { upstreamHead } from '../src/forwarder/upstream-head.ts';
import { assert } from '../src/lib/assert.ts';
import { nowUs } from '../src/lib/clock.ts';
import { encodeHeadersInto } from '../src/protocol/header-codec.ts';
import { OwnHeaders } from '../src/protocol/own-headers.ts';
import { ReplicaPaths } from '../src/protocol/replica-base.ts';
import { routeOf } from '../src/protocol/routes.ts';
import { newSpanId, newTraceId, unsampledTraceparent } from '../src/protocol/traceparent.ts';
import { createByteRing, SpanRingLayout } from '../src/shm/byte-ring.ts';
import { spanRingBytes } from '../src/shm/memory.ts';
import { createMetricsRegion } from '../src/shm/metrics.layout.ts';
import { MetricsWriter } from '../src/shm/metrics.ts';
import { SpanReader, type SpanRecord, SpanWriter } from '../src/shm/span-records.ts';
import { defaultMetricDims } from '../src/telemetry/labels.ts';
import { openExport } from '../src/tracer/export.ts';
import { SpanBuilder } from '../src/tracer/spans.ts';
import { createBench } from './harness.ts';

const bench = createBench('tracing', 'What do traces of 1 % of the requests cost a request?');
const traces = bench.parameter('traces', { smoke: 160, full: 16_000 });
const share = 0.01;
/** 3 % of the 60 us of processor time that a request took when this was promised. */
const limitNs = 1800;

// --- a request that is not traced ---------------------------------------------------------------

const counters = new MetricsWriter(createMetricsRegion(defaultMetricDims), defaultMetricDims);
const newRing = () => createByteRing(spanRingBytes, 0, SpanRingLayout);
const tracing = new Tracing(newRing(), 0, 1, counters);
const received = ['content-type', 'application/json', 'accept', '*/*', 'user-agent', 'bench/1'];
const blob = new Uint8Array(new SharedArrayBuffer(4096));
const sent = Buffer.alloc(4096);
const list: string[] = [];
const route = routeOf(1);
const own = new OwnHeaders({ apiKey: '' });
const paths = new ReplicaPaths('http://127.0.0.1:9001');

/** From what a client sent to the head as its replica is sent it. */
const headOf = (state: Tracing | undefined) => (): number => {
  list.length = 0;
  for (const text of received) list.push(text);
  pushTraceContext(list, state, state?.begin('', 1), '');
  list.push('x-request-id', '01987c1e-0000-7000-8000-000000000000');
  const { headers } = upstreamHead(
    blob.subarray(0, encodeHeadersInto(blob, 0, list)),
    ...([route, paths, own] as const),
  );
  if (state !== undefined) headers.push('traceparent', unsampledTraceparent());
  let text = '';
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return sent.write(text, 'latin1');
};
const calls = bench.parameter('calls', { smoke: 500, full: 100_000 });
const turns = bench.parameter('turns', { smoke: 3, full: 25 });

/** Processor time of one call; other programs of the machine are none of it. */
function cpuNs(work: () => number, count: number): number {
  const before = process.cpuUsage();
  let sum = 0;
  for (let i = 0; i < count; i++) sum += work();
  const { user, system } = process.cpuUsage(before);
  assert(sum > 0, 'the work was done');
  return ((user + system) * 1000) / count;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] as number;

function record(label: string, values: readonly number[], ops: number): void {
  const [nsPerOpMin, nsPerOpMax] = [Math.min(...values), Math.max(...values)];
  bench.record({ label, nsPerOp: median(values), nsPerOpMin, nsPerOpMax, ops });
}

const [withOut, withIt] = [headOf(undefined), headOf(tracing)];
const heads = { off: [] as number[], on: [] as number[] };
for (let turn = -2; turn < turns; turn++) {
  const [off, on] = [cpuNs(withOut, calls), cpuNs(withIt, calls)];
  if (turn < 0) continue;
  heads.off.push(off);
  heads.on.push(on);
}
record('head of a request, no traces', heads.off, turns * calls);
record('head of a request that is not traced', heads.on, turns * calls);
const perOther = median(heads.on.map((on, turn) => on - (heads.off[turn] as number)));
bench.hash(withOut());

// --- one that is --------------------------------------------------------------------------------

function recordsOf(): readonly SpanRecord[] {
  const [traceId, spanId, us] = [newTraceId(), newSpanId(), nowUs()];
  const tokens = { inputTokens: 20, outputTokens: 16, cachedTokens: -1 };
  const both = { traceId, route: 1, model: 0, isStream: false, status: 200, error: '', ...tokens };
  const times = { startUs: us - 19_500, endUs: us, firstTokenUs: us - 9000 };
  return [
    {
      ...{ kind: 'request', ...both, ...times, spanId, parentId: '', queuedUs: 0 },
      ...{ requestId: '01987c1e-0000-7000-8000-000000000000', tenant: 't', servedModel: 0 },
      ...{ adapter: '', attempts: 1 },
    },
    {
      ...{ kind: 'attempt', ...both, ...times, spanId: newSpanId(), parentId: spanId },
      ...{ queuedUs: us - 19_900, dispatchedUs: us - 19_600, sentUs: us - 19_400 },
      ...{ firstByteUs: us - 9100, maxTokens: 16, replica: 'r1', url: 'http://127.0.0.1:9001' },
      ...{ attempt: 1, exchange: 'first', sharers: 1, outcome: 'ok' },
    },
  ];
}

const full = newRing();
const [writer, reader] = [
  new SpanWriter(full, () => assert(false, 'the ring has room')),
  new SpanReader(full),
];
const pair = recordsOf();
const cross = (): number => {
  for (const each of pair) writer.write(each);
  return (reader.next()?.route ?? 0) + (reader.next()?.route ?? 0);
};
const crossed = Array.from({ length: turns }, () => cpuNs(cross, calls / 10));
record('two records, written and read', crossed, (turns * calls) / 10);

const collector = createServer((request, response) => {
  request.resume().on('end', () => response.end());
});
await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
const { port } = collector.address() as AddressInfo;
let done = 0;
const way = await openExport(
  {
    ...{ endpoint: `http://127.0.0.1:${port}/v1/traces`, headers: {}, version: '0' },
    serviceName: 'bench',
  },
  { sent: (spans) => (done += spans), lost: (_, error) => assert(false, String(error)) },
);
const builder = new SpanBuilder(
  {
    ...{ models: ['m'], scheme: 'http', resource: way.resource },
    scope: { name: 'sluice', version: '0' },
  },
  way.take,
);

/** Processor time of this process for each trace, its export included. */
async function spansNs(count: number): Promise<number> {
  const before = process.cpuUsage();
  const due = done + 3 * count;
  for (let made = 0; made < count; made++) {
    while (!way.hasRoom) await new Promise((resolve) => setTimeout(resolve, 1));
    for (const record of recordsOf()) builder.build(record);
  }
  while (done < due) await new Promise((resolve) => setTimeout(resolve, 5));
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / count;
}

const runs = 8;
const each: number[] = [];
for (let run = 0; run < runs; run++) each.push(await spansNs(traces / runs));
await way.close(1000);
collector.closeAllConnections();
collector.close();
// The first ones are those of a thread that has just begun: its code is not compiled yet.
const cold = each[0] as number;
const warm = each.slice(runs / 2);
record('three spans, made and sent', warm, traces / 2);
const perTrace = median(crossed) + median(warm);
bench.figure({
  name: 'traces of 1 %, for each request',
  value: perOther + share * perTrace,
  unit: 'ns',
  better: 'lower',
  floor: limitNs,
  detail: `${perOther.toFixed(0)} ns where it is not traced, ${(share * perTrace).toFixed(0)} ns its share of one that is; ${(share * cold).toFixed(0)} ns while the tracer is new`,
});
bench.finish();
