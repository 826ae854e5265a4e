/**
 * A hosted provider as a replica, through a whole gateway: over TLS, with the gateway's key, under the name
 * it has for the model, within the rate limits that are kept for it, and as a fallback of a local model.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { type Answer, chatBody, post, withReplicas } from '../support/scenario.ts';

const key = 'sk-of-the-gateway';
const hostedName = 'vendor/model-2';

const hasOpenssl = ((): boolean => {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** Answers chats like an engine, and remembers what it was asked with. */
class Provider {
  readonly asked: { authorization: string | undefined; model: string }[] = [];
  /** Chats from here on are a 429 with this advice, seconds. */
  retryAfterS = 0;
  readonly #server: Server;

  constructor(files: { readonly cert: string; readonly key: string }) {
    const options = { cert: readFileSync(files.cert), key: readFileSync(files.key) };
    this.#server = createServer(options, (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const answer = (status: number, value: object, headers = {}): void => {
          response.writeHead(status, { 'content-type': 'application/json', ...headers });
          response.end(JSON.stringify(value));
        };
        if (request.headers.authorization !== `Bearer ${key}`) answer(401, { error: {} });
        else if (request.method === 'GET') answer(200, { object: 'list', data: [] });
        else if (this.retryAfterS > 0) {
          answer(429, { error: {} }, { 'retry-after': String(this.retryAfterS) });
        } else {
          const { model } = JSON.parse(Buffer.concat(chunks).toString());
          this.asked.push({ authorization: request.headers.authorization, model });
          const message = { role: 'assistant', content: 'hosted' };
          const usage = { prompt_tokens: 10, completion_tokens: 30, total_tokens: 40 };
          const choices = [{ index: 0, message, finish_reason: 'stop' }];
          const whole = { id: 'x', object: 'chat.completion', created: 0, model, choices, usage };
          answer(200, whole, { 'x-ratelimit-remaining-tokens': '7' });
        }
      });
    });
  }

  listen(): Promise<string> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => {
        resolve(`https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`);
      });
    });
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

let folder = '';
const certificate = { cert: '', key: '' };
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-hosted-'));
  certificate.cert = join(folder, 'cert.pem');
  certificate.key = join(folder, 'key.pem');
  if (!hasOpenssl) return;
  const subject = ['-subj', '/CN=provider', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const rest = ['-days', '2', '-nodes', '-newkey', 'rsa:2048'];
  const files = ['-keyout', certificate.key, '-out', certificate.cert];
  execFileSync('openssl', ['req', '-x509', ...subject, ...rest, ...files], { stdio: 'ignore' });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ask = (gateway: GatewayProcess, model: string, prompt = 'x'): Promise<Answer> =>
  post(gateway.url, chatBody(prompt, { model, max_tokens: 4 }), {
    authorization: 'Bearer of-the-client',
  });

describe.skipIf(!hasOpenssl).each(testEngines)('on %s', (engine) => {
  async function withProvider(
    limits: ConfigInput['models'][number]['replicas'][number]['limits'],
    use: (gateway: GatewayProcess, provider: Provider) => Promise<void>,
  ): Promise<void> {
    const provider = new Provider(certificate);
    try {
      const hosted = { url: await provider.listen(), name: 'hosted', api_key: key, limits };
      await withReplicas(1, {}, async ([local]) => {
        const config = {
          listen: { engine },
          models: [
            {
              name: 'mini',
              fallbacks: ['local'],
              replicas: [{ ...hosted, served_model_name: hostedName }],
            },
            { name: 'local', fallbacks: ['mini'], replicas: [{ url: local!.url, name: 'l1' }] },
          ],
        };
        const env = { NODE_EXTRA_CA_CERTS: certificate.cert };
        await withGateway({ config, env }, (gateway) => use(gateway, provider));
      });
    } finally {
      await provider.close();
    }
  }

  const serversOf = async (gateway: GatewayProcess, count: number): Promise<(string | null)[]> => {
    const names: (string | null)[] = [];
    for (let i = 0; i < count; i++) {
      const answer = await ask(gateway, 'mini');
      expect(answer.status).toBe(200);
      names.push(answer.headers.get('x-sluice-model'));
    }
    return names;
  };

  test('it is asked with the key and the name it knows, and answers for a local model', async () => {
    await withProvider(undefined, async (gateway, provider) => {
      const answer = await ask(gateway, 'mini');
      expect(JSON.parse(answer.text).choices[0].message.content).toBe('hosted');
      // What the key of the gateway has left is nothing to throttle a client by.
      expect(answer.headers.get('x-ratelimit-remaining-tokens')).toBeNull();
      const instead = await ask(gateway, 'local', 'y [[fault:status=500]]');
      expect(instead.headers.get('x-sluice-model')).toBe('mini');
      const expected = { authorization: `Bearer ${key}`, model: hostedName };
      expect(provider.asked).toEqual([expected, expected]);
      // Its 429 counts for as long as it says, for everybody.
      provider.retryAfterS = 120;
      expect(await serversOf(gateway, 3)).toEqual(['local', 'local', 'local']);
      expect((await gateway.cluster()).replicas[0]).toMatchObject({ name: 'hosted', requests: 3 });
    });
  });

  test('what its limits do not allow goes on to the next model, or is told when to come', async () => {
    await withProvider({ requests_per_minute: 3, burst: '60s' }, async (gateway, provider) => {
      expect(await serversOf(gateway, 5)).toEqual(['mini', 'mini', 'mini', 'local', 'local']);
      expect(provider.asked).toHaveLength(3);
      const refused = await ask(gateway, 'local', 'y [[fault:status=500]]');
      expect(refused.status).toBe(429);
      expect(refused.text).toContain('rate limits of the replicas');
      const waitMs = Number(refused.headers.get('retry-after-ms'));
      expect(waitMs).toBeGreaterThan(5_000);
      expect(waitMs).toBeLessThanOrEqual(20_000);
    });
    // 40 tokens come of each; a bucket holds what two of them take and more.
    await withProvider({ tokens_per_minute: 60, burst: '60s' }, async (gateway) => {
      const served = await serversOf(gateway, 4);
      expect(served.filter((name) => name === 'mini')).toHaveLength(2);
      expect(served.at(-1)).toBe('local');
    });
  });
});
