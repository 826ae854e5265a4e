/** Simulated replicas and a gateway in front of them, as the official OpenAI client meets them. */
import OpenAI from 'openai';
import { afterAll, beforeAll } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import type { Replica } from '../../src/replica/replica.ts';
import type { AttemptRecord } from '../../src/replica/stats.ts';
import { naturalLength, renderChat, tokenSeries, tokensText } from '../../src/replica/tokens.ts';
import { type GatewayProcess, gatewayProcess, type TestEngine } from './gateway.ts';
import { replicaInProcess } from './replica.ts';

export const model = 'sim';
/** Another name of it, which a client encodes in a path. */
export const slashedModel = 'meta-llama/Llama-3-8b';
/** A model of one replica that takes one request, and no queue. */
export const narrowModel = 'sim-narrow';
export const keyedModel = 'sim-keyed';
export const deadModel = 'sim-dead';
/** Models of one replica each, to be spoilt by one test. */
export const limitedModel = 'sim-limited';
export const overloadedModel = 'sim-overloaded';
export const replicaKey = 'sk-of-the-gateway';
export const clientKey = 'sk-of-the-client';

const replicaNames = ['a', 'b', 'narrow', 'keyed', 'limited', 'overloaded'] as const;
type ReplicaName = (typeof replicaNames)[number];

export interface Watch {
  readonly maxRetries?: number;
  readonly onRequest?: (body: string) => void;
  readonly onResponse?: (response: Response, start: number) => void;
}

export class OpenAiFleet {
  readonly gateway: GatewayProcess;
  readonly replicas: Readonly<Record<ReplicaName, Replica>>;

  private constructor(gateway: GatewayProcess, replicas: Record<ReplicaName, Replica>) {
    this.gateway = gateway;
    this.replicas = replicas;
  }

  static async start(engine: TestEngine): Promise<OpenAiFleet> {
    const started = await Promise.all(replicaNames.map(startReplica));
    const replicas = Object.fromEntries(
      replicaNames.map((name, i) => [name, started[i]]),
    ) as Record<ReplicaName, Replica>;
    const dead = await replicaInProcess();
    await dead.close();
    const { a, b, narrow, keyed, limited, overloaded } = replicas;
    const gateway = await gatewayProcess({
      config: {
        listen: { engine },
        queue: { max: 0 },
        health: { interval: '200ms', timeout: '200ms' },
        models: [
          {
            name: model,
            aliases: ['gpt-4o-mini', slashedModel],
            replicas: [{ url: a.url }, { url: b.url }],
          },
          { name: narrowModel, replicas: [{ url: narrow.url, max_in_flight: 1 }] },
          { name: keyedModel, replicas: [{ url: keyed.url, api_key: replicaKey }] },
          { name: deadModel, replicas: [{ url: dead.url }] },
          { name: limitedModel, replicas: [{ url: limited.url }] },
          { name: overloadedModel, replicas: [{ url: overloaded.url }] },
        ],
      },
    });
    return new OpenAiFleet(gateway, replicas);
  }

  async close(): Promise<void> {
    await this.gateway.close();
    for (const replica of Object.values(this.replicas)) await replica.close();
  }

  /** Requests the two replicas of `model` work on. */
  running(): number {
    const { a, b } = this.replicas;
    return a.stats().in_flight + b.stats().in_flight;
  }

  /** Every attempt of a nonce on the two replicas of `model`. */
  attempts(nonce: string): AttemptRecord[] {
    const { a, b } = this.replicas;
    return [...a.ledger(nonce), ...b.ledger(nonce)];
  }

  /** A client whose requests and answers are seen as they cross the wire. */
  clientWith({ maxRetries = 0, onRequest, onResponse }: Watch): OpenAI {
    return new OpenAI({
      baseURL: `${this.gateway.url}/v1`,
      apiKey: clientKey,
      maxRetries,
      fetch: async (url, init) => {
        const start = nowMs();
        if (typeof init?.body === 'string') onRequest?.(init.body);
        const response = await fetch(url, init);
        onResponse?.(response, start);
        return response;
      },
    });
  }
}

/** What a simulated replica answers to a chat of one user message. */
export function answerTo(content: string, choice = 0, length?: number): string {
  const prompt = renderChat([{ role: 'user', content }]);
  const series = tokenSeries(prompt, choice);
  return tokensText(series, 0, length ?? naturalLength(series));
}

function startReplica(name: ReplicaName): Promise<Replica> {
  const profile = 'tokens:ttft=2ms,itl=1ms';
  const apiKey = name === 'keyed' ? replicaKey : '';
  return replicaInProcess({ name, profile, model, apiKey });
}

/** One gateway over its replicas for all tests of a suite. */
export function fleetForAll(engine: TestEngine, use: (fleet: OpenAiFleet) => void): void {
  let fleet: OpenAiFleet | undefined;
  beforeAll(async () => {
    fleet = await OpenAiFleet.start(engine);
    use(fleet);
  });
  afterAll(() => fleet?.close());
}
