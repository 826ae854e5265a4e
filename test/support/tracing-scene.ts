/** A gateway that traces to a real receiver of OTLP, in front of two replicas; and the trace of each test. */
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess } from './gateway.ts';
import { OtlpReceiver, type ReceivedSpan } from './otlp-receiver.ts';
import { replicaInProcess } from './replica.ts';
import { expectConnected, newTrace } from './span-tree.ts';
import { type Call, type CallOptions, call } from './traffic.ts';

type TracedReplica = { readonly url: string; readonly name: string };
interface SceneOptions {
  readonly engine: 'uws' | 'node';
  models(replicas: TracedReplica[]): ConfigInput['models'];
  readonly tracing?: object;
  readonly tenant?: object;
}

export class TracingScene {
  readonly receiver: OtlpReceiver;
  readonly replicas: readonly Replica[];
  readonly gateway: GatewayProcess;
  readonly #key: string;
  #trace = newTrace();
  #count = 0;

  private constructor(
    receiver: OtlpReceiver,
    replicas: readonly Replica[],
    gateway: GatewayProcess,
    key: string,
  ) {
    this.receiver = receiver;
    this.replicas = replicas;
    this.gateway = gateway;
    this.#key = key;
  }

  /** Of replicas `a` and `b`, which the gateway knows as `r1` and `r2`. */
  static async start({ engine, models, tracing, tenant }: SceneOptions): Promise<TracingScene> {
    const key = newKey();
    const receiver = await OtlpReceiver.listen();
    const settings = { model: 'm', profile: 'tokens:ttft=2ms,itl=2ms' };
    const replicas = [
      await replicaInProcess({ ...settings, name: 'a', seed: 1 }),
      await replicaInProcess({ ...settings, name: 'b', seed: 2 }),
    ];
    const config: ConfigInput = {
      listen: { engine },
      log: { level: 'info', sample: 1, pretty: 'never' },
      health: { interval: '10m' },
      breaker: { mode: 'off' },
      retry: { budget: 1, budget_min: 1000 },
      tracing: { endpoint: receiver.endpoint, sample: 0, ...tracing },
      auth: { keys: 'auto' },
      tenants: [{ name: 'acme', keys: [{ id: 'k', sha256: sha256Of(key) }], ...tenant }],
      models: models(replicas.map(({ url }, i) => ({ url, name: `r${i + 1}` }))),
    };
    return new TracingScene(receiver, replicas, await gatewayProcess({ config }), key);
  }

  get bearer(): { authorization: string } {
    return { authorization: `Bearer ${this.#key}` };
  }

  /** Of which `traced` sends requests. */
  get trace(): ReturnType<typeof newTrace> {
    return this.#trace;
  }

  nextTrace(): void {
    this.#trace = newTrace();
    this.#count++;
  }

  /** A call whose client has sampled it, unless `flags` says otherwise. */
  traced(options: Partial<CallOptions> = {}, flags = '01'): Call {
    const headers = {
      ...this.bearer,
      traceparent: `00-${this.#trace.traceId}-${this.#trace.spanId}-${flags}`,
      tracestate: 'vendor=opaque,other=1',
      ...options.headers,
    };
    return call(this.gateway.port, { nonce: `t-${this.#count}`, ...options, headers });
  }

  /** Of the trace, once so many of them are there. */
  spans(count: number): Promise<ReceivedSpan[]> {
    return this.receiver.trace(this.#trace.traceId, count);
  }

  /** All of them are one tree below what the client sent; its root. */
  root(spans: readonly ReceivedSpan[]): ReceivedSpan {
    return expectConnected(spans, this.#trace.spanId);
  }

  async close(): Promise<void> {
    await this.gateway.finish();
    for (const replica of this.replicas) await replica.close();
    await this.receiver.close();
  }
}
