/** Gateways that share the limits of tenants by way of one Redis, with a line to it that can be slow. */
import { expect } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { createRequestTemplate } from '../../src/load/request-template.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess } from './gateway.ts';
import { RedisServer, SlowLine } from './redis-server.ts';
import { replicaInProcess } from './replica.ts';
import { chatBody, chatPath, load, model, post, total } from './scenario.ts';
import { faultEnv, faultToken } from './thread-faults.ts';

type Redis = NonNullable<NonNullable<ConfigInput['limits']>['redis']>;
type Tenant = NonNullable<ConfigInput['tenants']>[number];

export class SharedLimitsScene {
  readonly redis: RedisServer;
  readonly line: SlowLine;
  readonly gateways: GatewayProcess[] = [];
  readonly #replica: Replica;
  readonly #key = newKey();

  private constructor(redis: RedisServer, line: SlowLine, replica: Replica) {
    this.redis = redis;
    this.line = line;
    this.#replica = replica;
  }

  /** `tenants` by name, with all but their keys. */
  static async start(
    count: number,
    tenants: Readonly<Record<string, Omit<Tenant, 'name'>>>,
    redis: Redis = {},
    env: Readonly<Record<string, string>> = {},
  ): Promise<SharedLimitsScene> {
    const server = await RedisServer.start();
    const line = await SlowLine.to(server.port);
    const scene = new SharedLimitsScene(
      server,
      line,
      await replicaInProcess({ profile: 'instant' }),
    );
    const urls = [`redis://127.0.0.1:${line.port}`];
    await scene.#startGateways(count, tenants, { urls, ...redis }, env);
    return scene;
  }

  ask(gateway: GatewayProcess, tenant: string, more: object = {}): ReturnType<typeof post> {
    return post(gateway.url, chatBody('x', more), this.#bearer(tenant));
  }

  /** So many requests over so many connections; how many of each status came back. */
  async ends(gateway: GatewayProcess, tenant: string, connections: number, requestsMax: number) {
    const template = createRequestTemplate(
      {
        ...{ endpoint: chatPath, model, stream: false, inputTokens: 0, promptBytes: 0 },
        ...{ outputTokens: 4, ignoreEos: false, seed: 1 },
      },
      new URL(gateway.url).host,
      this.#bearer(tenant),
    );
    const { metrics } = await load(gateway, { connections, requestsMax, template });
    return metrics.statuses;
  }

  /** Each tenant at both gateways in turn: the four requests that one bucket has, and no more. */
  async expectShared(tenants: object): Promise<void> {
    for (const tenant of Object.keys(tenants)) {
      const statuses: number[] = [];
      for (let i = 0; i < 6; i++) {
        statuses.push((await this.ask(this.gateways[i % 2] as GatewayProcess, tenant)).status);
      }
      expect(statuses, tenant).toEqual([200, 200, 200, 200, 429, 429]);
    }
  }

  async isUp(gateway: GatewayProcess): Promise<boolean> {
    return total(await gateway.metrics(), 'sluice_limit_store_up') === 1;
  }

  async calls(gateway: GatewayProcess, result?: string): Promise<number> {
    const labels = result === undefined ? {} : { result };
    return total(await gateway.metrics(), 'sluice_limit_store_calls_total', labels);
  }

  async close(): Promise<void> {
    for (const gateway of this.gateways) await gateway.finish();
    await this.#replica.close();
    await this.line.close();
    await this.redis.close();
  }

  async #startGateways(
    count: number,
    tenants: Readonly<Record<string, Omit<Tenant, 'name'>>>,
    redis: Redis,
    env: Readonly<Record<string, string>>,
  ): Promise<void> {
    const config: ConfigInput = {
      admin: { token: faultToken },
      limits: { store: 'redis', redis, gateways: count },
      tenants: Object.entries(tenants).map(([name, tenant]) => ({
        ...{ name, keys: [{ id: 'one', sha256: sha256Of(`${this.#key}-${name}`) }] },
        ...tenant,
      })),
      models: [{ name: model, replicas: [{ url: this.#replica.url }] }],
    };
    for (let i = 0; i < count; i++) {
      this.gateways.push(await gatewayProcess({ config, env: { ...faultEnv, ...env } }));
    }
  }

  #bearer(tenant: string): { authorization: string } {
    return { authorization: `Bearer ${this.#key}-${tenant}` };
  }
}
