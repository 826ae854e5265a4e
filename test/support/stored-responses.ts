/** Requests for stored responses, and simulated replicas whose ids say which of them made a response. */
import type { ConfigInput } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess } from './gateway.ts';
import { replicaInProcess } from './replica.ts';

export const token = 'admin-of-responses';
export const names = ['a', 'b', 'c', 'd'] as const;

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: {
    readonly id: string;
    readonly status: string;
    readonly previous_response_id: string | null;
    readonly error?: { readonly code: string; readonly message: string; readonly param: string };
  };
}

export async function ask(
  url: string,
  method: string,
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(url + path, {
    ...{ method, headers: { 'content-type': 'application/json', ...headers } },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: JSON.parse(text) };
}

export const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
export const create = (url: string, more: object = {}, headers = {}): Promise<Answer> =>
  ask(
    url,
    'POST',
    '/v1/responses',
    { model: 'm', input: 'x', max_output_tokens: 4, ...more },
    headers,
  );
export const get = (url: string, id: string, headers = {}): Promise<Answer> =>
  ask(url, 'GET', `/v1/responses/${id}`, undefined, headers);
/** The replica whose name the id has: the simulated ones make them of it. */
export const makerOf = (id: string): string => /^resp_(.+)-\d+$/.exec(id)?.[1] ?? '';
export const servedBy = ({ headers }: Answer): string | null => headers.get('x-sluice-replica');
export const startAll = (profile = 'instant'): Promise<Replica[]> =>
  Promise.all(names.map((name) => replicaInProcess({ name, profile })));
export const samples = async (
  gateway: GatewayProcess,
  family: string,
): Promise<Map<string, number>> => (await gateway.metrics()).get(family)?.samples ?? new Map();
export const count = async (gateway: GatewayProcess, event: string): Promise<number> => {
  const of = await samples(gateway, 'sluice_stored_responses_total');
  return of.get(`sluice_stored_responses_total{event="${event}"}`) ?? 0;
};

/** A gateway in front of four replicas in this process: three of the model `m`, and `d` of `other`. */
export class ResponsesScene {
  readonly replicas: readonly Replica[];
  readonly gateway: GatewayProcess;
  readonly #config: ConfigInput;

  private constructor(replicas: readonly Replica[], gateway: GatewayProcess, config: ConfigInput) {
    this.replicas = replicas;
    this.gateway = gateway;
    this.#config = config;
  }

  static async start(
    engine: 'uws' | 'node',
    own: Pick<ConfigInput, 'tenants' | 'splits'>,
  ): Promise<ResponsesScene> {
    const replicas = await startAll();
    const of = (from: number, end: number) =>
      replicas.slice(from, end).map(({ url }, i) => ({ url, name: names[from + i] }));
    const config: ConfigInput = {
      ...{ listen: { engine }, admin: { token }, log: { level: 'info', sample: 1 } },
      timeouts: { connect: '30s' }, // the replicas share the thread of the test
      models: [
        { name: 'm', replicas: of(0, 3) },
        { name: 'other', replicas: of(3, 4) },
      ],
      ...own,
    };
    return new ResponsesScene(replicas, await gatewayProcess({ config }), config);
  }

  /** The config of the gateway, or another one for it. */
  file(more: Partial<ConfigInput> = {}): ConfigInput {
    return { ...this.#config, ...more };
  }

  async close(): Promise<void> {
    await this.gateway.finish();
    for (const replica of this.replicas) await replica.close();
  }
}
