/**
 * Headers that a replica is sent by its config, as its server sees them: on every request that the gateway
 * makes there, in place of those of the client, and others after a reload. Both engines.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { doneEvent, finishEvent, tokenEvent } from '../support/raw-replica.ts';
import { chatBody, configOf, post, quickHealth } from '../support/scenario.ts';

interface Seen {
  readonly what: string;
  /** Every value of each name, in the order in which they came. */
  readonly headers: ReadonlyMap<string, readonly string[]>;
}

/** An engine that keeps responses, has a page of metrics, and notes what each request says in its head. */
class Provider {
  readonly seen: Seen[] = [];
  /** Streams stand still behind their first event until somebody asks for one token. */
  isStill = false;
  readonly #server: Server;

  constructor() {
    const held: (() => void)[] = [];
    this.#server = createServer((request, response) => {
      const headers = new Map<string, string[]>();
      for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
        const name = request.rawHeaders[i]!.toLowerCase();
        headers.set(name, [...(headers.get(name) ?? []), request.rawHeaders[i + 1]!]);
      }
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const body = Buffer.concat(chunks).toString();
        const isProbe = body.includes('"ping"');
        this.seen.push({
          what: `${request.method} ${request.url}${isProbe ? ' probe' : ''}`,
          headers,
        });
        if (request.url?.endsWith('lora_adapter') === true) {
          response.writeHead(400, { 'content-type': 'application/json' });
          response.end(JSON.stringify({ message: `refused: ${request.rawHeaders.join(' ')}` }));
          return;
        }
        if (isProbe) for (const goOn of held.splice(0)) goOn();
        if (!body.includes('"stream":true')) {
          const id = { id: 'resp_1', object: 'response', status: 'completed', output: [] };
          response.writeHead(200, { 'content-type': 'application/json' });
          response.end(JSON.stringify({ ...id, data: [], choices: [], count: 1, tokens: [1] }));
          return;
        }
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const rest = (): void => void response.end(tokenEvent('b') + finishEvent + doneEvent);
        response.write(tokenEvent('a'));
        if (this.isStill) held.push(rest);
        else rest();
      });
    });
  }

  listen(): Promise<string> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => {
        resolve(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`);
      });
    });
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** What requests of that kind have said, once one has come. */
  async of(what: string): Promise<readonly Seen[]> {
    const found = () => this.seen.filter((each) => each.what === what);
    await expect.poll(() => found().length, { message: what, timeout: 10_000 }).toBeGreaterThan(0);
    return found();
  }
}

const ofClient = {
  authorization: 'Bearer of-the-client',
  'x-api-key': 'of-the-client',
  'api-key': 'of-the-client',
  'anthropic-version': '1999-01-01',
  'x-session-id': 'session',
};
const own = { 'Anthropic-Version': '2023-06-01', 'X-Title': 'Two words', 'x-empty': '' };

type Row = ConfigInput['models'][number]['replicas'][number];

function configFor(engine: 'uws' | 'node', rows: readonly Row[]): ConfigInput {
  const probing = { ...quickHealth, stall: '500ms', token_timeout: '5s' } as const;
  const more = {
    ...{ listen: { engine }, admin: { token: 'admin-token' }, health: probing },
    engine_metrics: { interval: '200ms', timeout: '200ms' },
  } as const;
  return configOf([], more, { replicas: [...rows] });
}

/** Every request that can be made to a replica of the gateway, the client's and its own. */
async function makeAll(gateway: GatewayProcess, provider: Provider): Promise<readonly Seen[]> {
  const asked: Promise<readonly Seen[]>[] = [];
  const send = async (path: string, body: object): Promise<void> => {
    expect((await post(gateway.url, body, ofClient, path)).status, path).toBe(200);
    asked.push(provider.of(`POST ${path}`));
  };
  await send('/v1/chat/completions', chatBody('x'));
  await send('/v1/messages', chatBody('x', { max_tokens: 1 }));
  await send('/tokenize', { model: 'm', prompt: 'x' });
  await send('/v1/responses', { model: 'm', input: 'x' });
  const kept = await fetch(`${gateway.url}/v1/responses/resp_1`, { headers: ofClient });
  expect(kept.status).toBe(200);
  asked.push(provider.of('GET /v1/responses/resp_1'));
  provider.isStill = true;
  const stream = await post(gateway.url, chatBody('x', { stream: true }), ofClient);
  expect(stream.text).toContain('[DONE]');
  for (const own of ['GET /v1/models', 'GET /metrics', 'POST /v1/chat/completions probe']) {
    asked.push(provider.of(own));
  }
  return (await Promise.all(asked)).flat();
}

async function withProvider(
  use: (provider: Provider, url: string) => Promise<void>,
): Promise<void> {
  const provider = new Provider();
  try {
    await use(provider, await provider.listen());
  } finally {
    provider.close();
  }
}

describe.each(testEngines)('on %s', (engine) => {
  test('every request has the key and the headers of the config, and no key of the client', async () => {
    await withProvider(async (provider, url) => {
      const row = { url, name: 'r1', api_key: 'the-key-of-ours', headers: own };
      const rows = [{ ...row, api_key_header: 'Api-Key' }];
      await withGateway({ config: configFor(engine, rows) }, async (gateway) => {
        const all = await makeAll(gateway, provider);
        expect(new Set(all.map(({ what }) => what)).size).toBe(8);
        for (const { what, headers } of all) {
          expect(headers.get('api-key'), what).toEqual(['the-key-of-ours']);
          expect(headers.get('anthropic-version'), what).toEqual(['2023-06-01']);
          expect(headers.get('x-title'), what).toEqual(['Two words']);
          for (const none of ['authorization', 'x-api-key', 'x-empty']) {
            expect(headers.has(none), `${what}: ${none}`).toBe(false);
          }
          expect([...headers.values()].flat().join(), what).not.toContain('of-the-client');
        }
        const [chat] = await provider.of('POST /v1/messages');
        expect(chat?.headers.get('x-session-id')).toEqual(['session']);
        const pages = ['/v1/cluster', '/admin/slots', '/metrics'];
        for (const page of pages) {
          const bearer = { authorization: 'Bearer admin-token' };
          const text = await (await fetch(gateway.adminUrl + page, { headers: bearer })).text();
          expect(text).not.toMatch(/the-key-of-ours|Two words/);
        }
        expect(gateway.output()).not.toMatch(/the-key-of-ours|Two words/);
      });
    });
  });

  test('adapters are asked for with them, and what is answered is told without', async () => {
    await withProvider(async (provider, url) => {
      const row = { url, name: 'r1', api_key: 'the-key-of-ours', headers: own };
      const lora = { adapters: [{ name: 'sql', path: '/adapters/sql' }] };
      const rows = [{ ...row, api_key_header: 'x-api-key' }];
      const config = configOf([], { listen: { engine } }, { replicas: rows, lora });
      await withGateway({ config }, async (gateway) => {
        expect((await post(gateway.url, chatBody('x', { model: 'sql' }), ofClient)).status).toBe(
          503,
        );
        const [load] = await provider.of('POST /v1/load_lora_adapter');
        expect(load?.headers.get('x-api-key')).toEqual(['the-key-of-ours']);
        expect(load?.headers.get('x-title')).toEqual(['Two words']);
        await gateway.said('answered 400: {');
        expect(gateway.output()).toContain('refused: ');
        expect(gateway.output()).not.toMatch(/the-key-of-ours|Two words/);
      });
    });
  });

  test('without a key of the gateway that of the client goes on, beside the headers', async () => {
    await withProvider(async (provider, url) => {
      const config = configFor(engine, [{ url, name: 'r1', headers: own }]);
      await withGateway({ config }, async (gateway) => {
        expect((await post(gateway.url, chatBody('x'), ofClient)).status).toBe(200);
        const [chat] = await provider.of('POST /v1/chat/completions');
        expect(chat?.headers.get('authorization')).toEqual(['Bearer of-the-client']);
        expect(chat?.headers.get('x-api-key')).toEqual(['of-the-client']);
        expect(chat?.headers.get('anthropic-version')).toEqual(['2023-06-01']);
        expect(chat?.headers.has('api-key')).toBe(false);
      });
    });
  });

  test('a reload takes another key, another header for it and other headers; so does one by hand', async () => {
    await withProvider(async (provider, url) => {
      const row = { url, name: 'r1', api_key: 'first' };
      await withGateway({ config: configFor(engine, [row]) }, async (gateway) => {
        const last = async () => {
          expect((await post(gateway.url, chatBody('x'), ofClient)).status).toBe(200);
          return provider.seen.findLast(({ what }) => what === 'POST /v1/chat/completions')
            ?.headers;
        };
        const reload = (rows: readonly Row[]) => {
          gateway.writeConfig(configFor(engine, rows));
          return adminPost(gateway.adminUrl, 'admin-token', 'reload');
        };
        expect((await last())?.get('authorization')).toEqual(['Bearer first']);
        const steps: readonly [Partial<Row>, Record<string, string>][] = [
          [{ api_key_header: 'x-api-key' }, { 'x-api-key': 'first' }],
          [{ headers: { 'x-team': 'a' } }, { authorization: 'Bearer first', 'x-team': 'a' }],
          [{ headers: { 'X-Team': 'b' } }, { authorization: 'Bearer first', 'x-team': 'b' }],
          [{ api_key: '', headers: { authorization: 'Basic b' } }, { authorization: 'Basic b' }],
        ];
        for (const [change, wanted] of steps) {
          const done = await reload([{ ...row, ...change }]);
          expect(done).toMatchObject({ status: 200, body: { replaced: ['r1'] } });
          const headers = await last();
          for (const name of ['authorization', 'x-api-key', 'api-key', 'x-team']) {
            expect(headers?.get(name)?.join(), name).toBe(wanted[name]);
          }
          // The same file once more replaces nothing.
          const again = await reload([{ ...row, ...change }]);
          expect(again).toMatchObject({ status: 200, body: { replaced: [] } });
        }
        const refused = await reload([{ ...row, headers: { Host: 'elsewhere' } }]);
        expect(refused.status).toBe(400);
        expect(JSON.stringify(refused.body)).toContain('headers.Host: must not be set');
        expect(JSON.stringify(refused.body)).not.toContain('elsewhere');
        const byHand = { model: 'm', name: 'r2', url, headers: { 'x-team': 'by hand' } };
        expect((await adminPost(gateway.adminUrl, 'admin-token', 'replicas', byHand)).status).toBe(
          201,
        );
        expect((await adminPost(gateway.adminUrl, 'admin-token', 'replicas/r1/drain')).status).toBe(
          200,
        );
        await expect.poll(async () => (await last())?.get('x-team')).toEqual(['by hand']);
      });
    });
  });
});
