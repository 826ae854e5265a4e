/** TLS on both engines: requests are served, and with `ca` a client without its certificate is not. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noClientCertificates } from '../../src/acceptor/uws-binary.ts';
import { AcceptorHarness } from '../support/acceptor-harness.ts';
import { hasOpenssl, makeCertificate } from '../support/certificates.ts';

const body = JSON.stringify({ model: 'm', messages: [] });
let folder = '';

function ask(
  port: number,
  extra: { cert?: Buffer; key?: Buffer; agent?: Agent } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request(
      {
        ...{ host: '127.0.0.1', port, path: '/v1/chat/completions', method: 'POST' },
        ...{ rejectUnauthorized: false, agent: false, headers: { 'content-length': body.length } },
        ...extra,
      },
      (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve(`${response.statusCode} ${text}`));
      },
    );
    call.on('error', reject);
    call.end(body);
  });
}

describe.runIf(hasOpenssl).each(['uws', 'node'] as const)('TLS, engine %s', (engine) => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('a large answer arrives over TLS', async () => {
    const harness = await AcceptorHarness.start({ engine, tls: makeCertificate(folder, 'server') });
    const large = 'x'.repeat(300_000);
    harness.onArrival = (arrival) => harness.whole(arrival, large);
    expect(await ask(harness.port)).toBe(`200 ${large}`);
    await harness.stop();
  });

  test('with ca only a client with a certificate of it is served', async () => {
    const server = makeCertificate(folder, 'server');
    const client = makeCertificate(folder, 'client');
    const start = AcceptorHarness.start({ engine, tls: { ...server, ca: client.cert } });
    if (engine === 'uws') {
      await expect(start).rejects.toThrow(noClientCertificates);
      return;
    }
    const harness = await start;
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    const pair = { cert: readFileSync(client.cert), key: readFileSync(client.key) };
    expect(await ask(harness.port, pair)).toBe('200 ok');
    await expect(ask(harness.port)).rejects.toThrow();
    const other = makeCertificate(folder, 'other');
    const wrong = { cert: readFileSync(other.cert), key: readFileSync(other.key) };
    await expect(ask(harness.port, wrong)).rejects.toThrow();
    await harness.stop();
  });
});

test.each(['uws', 'node'] as const)(
  'engine %s: a start that fails ends the thread',
  async (engine) => {
    const failing = AcceptorHarness.start({ engine, host: '192.0.2.1' }); // TEST-NET: never ours
    await expect(failing).rejects.toThrow(/listen|EADDRNOTAVAIL/);
  },
);
