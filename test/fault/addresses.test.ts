/**
 * T51: nobody makes the gateway, or a replica through it, connect to where it should not: addresses
 * of replicas in the file, redirects of a replica, media URLs in a prompt.
 */
import { describe, expect, test } from 'vitest';
import { figure } from '../support/figures.ts';
import { GatewayStartError, gatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { RawReplica } from '../support/raw-replica.ts';
import { configOf, model, post, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const image = (url: string): object => ({
  model,
  max_tokens: 2,
  messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
});

describe.each(testEngines)('T51, engine %s', (engine) => {
  test('media in a prompt: data and allowed hosts reach the replica, others nobody', async () => {
    await withReplicas(1, {}, async ([replica]) => {
      const rules = { allowed_media_domains: ['img.example.com'] };
      const config = configOf([replica!], { listen: { engine } }, rules);
      await withGateway({ config }, async (gateway) => {
        const refused = [
          'http://169.254.169.254/latest/meta-data/',
          'http://127.0.0.1:9090/metrics',
          'http://[::1]/',
          'https://evil.example.com/a.png',
          'https://img.example.com@evil.example.com/a.png',
          'file:///etc/passwd',
        ];
        for (const url of refused) {
          const answer = await post(gateway.url, image(url));
          expect([answer.status, JSON.parse(answer.text).error.code], url).toEqual([
            ...[400, 'media_not_allowed'],
          ]);
          expect(answer.text).not.toContain('evil');
        }
        expect(replica!.stats().started).toBe(0);
        figure('T51', 'requests with foreign media at a replica', replica!.stats().started);
        for (const url of ['data:image/png;base64,AAAA', 'https://img.example.com/a.png']) {
          expect((await post(gateway.url, image(url))).status, url).toBe(200);
        }
        const edit = async (url: string): Promise<number> => {
          const body = new FormData();
          body.set('model', model);
          body.set('url', url);
          return (await fetch(`${gateway.url}/v1/images/edits`, { method: 'POST', body })).status;
        };
        expect(await edit('http://169.254.169.254/')).toBe(400);
        expect(await edit('https://img.example.com/a.png')).not.toBe(400);
        const said = (): number =>
          gateway.output().split('not in allowed_media_domains').length - 1;
        await eventually('it is in the log', () => Promise.resolve(said() > 0));
        expect(said(), 'once for all of them').toBe(1);
      });
    });
  });

  test('a redirect of a replica is not followed', async () => {
    await withReplicas(1, {}, async ([target]) => {
      const replica = await RawReplica.listen(({ method, connection: { socket } }) => {
        const isProbe = method === 'GET';
        const head = isProbe
          ? 'HTTP/1.1 200 OK\r\n'
          : `HTTP/1.1 307 Temporary Redirect\r\nlocation: ${target!.url}/v1/chat/completions\r\n`;
        socket.write(`${head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{}`);
      });
      try {
        await withGateway(
          { config: configOf([replica], { listen: { engine } }) },
          async (gateway) => {
            const answer = await post(gateway.url, image('data:,x'));
            expect(answer.status).toBe(502);
            expect(answer.headers.get('location')).toBeNull();
            expect(target!.stats().started).toBe(0);
          },
        );
      } finally {
        await replica.close();
      }
    });
  });
});

test.each([
  'http://169.254.169.254/',
  'http://[fe80::1]/',
  'http://metadata.google.internal/',
  'file:///etc/passwd',
  'http://0.0.0.0:80/',
  'gopher://127.0.0.1/',
])('T51: no replica is at %s', async (url) => {
  const start = gatewayProcess({ config: configOf([{ url }]) });
  const error = await start.then(
    (gateway) => gateway.close(),
    (failure: unknown) => failure,
  );
  expect(error).toBeInstanceOf(GatewayStartError);
  expect((error as GatewayStartError).exit.code).toBe(2);
  expect((error as GatewayStartError).output).toMatch(/models\.0\.replicas\.0\.url/);
});
