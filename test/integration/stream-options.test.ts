/**
 * Replicas that do not know `stream_options`, which the gateway adds to streams to have their usage: they
 * are asked once more without, in the same attempt, and not again with it. Both engines.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  roleEvent,
  sse,
  tokenEvent,
} from '../support/raw-replica.ts';
import { type Answer, chatBody, configOf, post, total } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-options-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const groq = {
  message: "property 'stream_options' is unsupported, did you mean 'stream'?",
  type: 'invalid_request_error',
};
const fastapi = { type: 'extra_forbidden', loc: ['body', 'stream_options'], input: {} };

const wholeStream = Buffer.concat([
  sse(),
  ...[tokenEvent('a'), tokenEvent('b'), tokenEvent('c'), finishEvent, doneEvent].map(chunk),
  Buffer.from(lastChunk),
]);
const answer = (request: RawRequest, bytes: string | Buffer): void => {
  request.connection.socket.write(bytes);
};

/** Whether the bodies of the chats so far asked for usage. */
const askedFor = (replica: RawReplica, option = 'stream_options'): boolean[] =>
  replica.requests
    .filter(({ method }) => method === 'POST')
    .map(({ body }) => body.includes(option));

/** A stream that is cut behind its first token. */
const cutStream = (request: RawRequest): void => {
  answer(request, Buffer.concat([sse(), chunk(roleEvent), chunk(tokenEvent('z'))]));
  request.connection.socket.end();
};

/** A replica that streams, and refuses what names the option. */
async function withRefusing(
  refusal: string,
  use: (replica: RawReplica) => Promise<void>,
  refused = 'stream_options',
): Promise<void> {
  const replica = await RawReplica.listen((request) => {
    const { method, body } = request;
    if (method === 'GET') answer(request, jsonAnswer({ data: [] }));
    else if (body.includes('broken')) answer(request, jsonAnswer({ error: body.toString() }, 400));
    else answer(request, body.includes(refused) ? refusal : wholeStream);
  });
  try {
    await use(replica);
  } finally {
    await replica.close();
  }
}

const price = { input: 1, output: 1 };
const stream = (gateway: GatewayProcess, more: object = {}, id = 'x'): Promise<Answer> =>
  post(gateway.url, chatBody('hi', { stream: true, ...more }), { 'x-request-id': id });

describe.each(testEngines)('on %s', (engine) => {
  let file = '';
  let runs = 0;

  function configFor(urls: readonly string[], ofModel: object = {}): ConfigInput {
    file = join(folder, `${engine}-${runs++}.ndjson`);
    const replicas = urls.map((url, i) => ({ url, name: `r${i + 1}` }));
    const more = { listen: { engine }, admin: { token: 'admin-token' }, usage: { file } };
    return configOf([], more, { replicas, price, ...ofModel });
  }

  async function events(count: number): Promise<Record<string, unknown>[]> {
    const read = () =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line));
    await eventually('the events are written', () => read().length >= count);
    return read();
  }

  test.each([
    ['400 of Groq', jsonAnswer({ error: groq }, 400), {}],
    ['422 of FastAPI', jsonAnswer({ detail: [fastapi] }, 422), {}],
    [
      '400 in plain text',
      'HTTP/1.1 400 X\r\ncontent-length: 22\r\n\r\nunknown stream_options',
      { stream_usage: 'end' },
    ],
  ])(
    '%s costs one call more, once, and the client sees none of it',
    async (_, refusal, ofModel) => {
      await withRefusing(refusal, async (replica) => {
        await withGateway({ config: configFor([replica.url], ofModel) }, async (gateway) => {
          for (let i = 0; i < 4; i++) {
            const got = await stream(gateway, {}, `s-${i}`);
            expect(got.status).toBe(200);
            expect(got.text.match(/"content":"[abc]"/g)).toHaveLength(3);
            expect(got.text).toContain('[DONE]');
            expect(got.headers.get('x-sluice-attempts')).toBe('1');
          }
          expect(askedFor(replica)).toEqual([true, false, false, false, false]);
          const page = await gateway.metrics();
          expect(total(page, 'sluice_stream_options_refused_total', { replica: 'r1' })).toBe(1);
          expect(total(page, 'sluice_replica_requests_total', { replica: 'r1' })).toBe(4);
          expect(total(page, 'sluice_replica_errors_total')).toBe(0);
          expect(total(page, 'sluice_replica_retries_total')).toBe(0);
          await gateway.said('stream_options_refused');
          expect(gateway.output().split('stream_options_refused')).toHaveLength(2);
          const told = await events(4);
          expect(told.map(({ req_id: id }) => id).toSorted()).toEqual(['s-0', 's-1', 's-2', 's-3']);
          for (const { attempts, outcome, output_tokens: output } of told) {
            expect({ attempts, outcome, output }).toEqual({
              attempts: 1,
              outcome: 'ok',
              output: 3,
            });
          }
          const { replicas } = await gateway.cluster();
          expect(replicas[0]).toMatchObject({ requests: 4, errors: 0, in_flight: 0 });
        });
      });
    },
  );

  // Whether it was the option, or what is asked by it beyond that of OpenAI, shows when less is asked.
  test.each([
    ['422 to usage of every chunk', { stream_usage: 'continuous' }, 'stream_options'],
    ['422 to what a continuation needs', { continuation: 'text' }, 'stream_options'],
    [
      '422 to continuous_usage_stats alone',
      { stream_usage: 'continuous' },
      'continuous_usage_stats',
    ],
    [
      '422 to continuous_usage_stats of a continuation',
      { continuation: 'text' },
      'continuous_usage_stats',
    ],
  ])('%s costs one call more for each step', async (_, ofModel, refused) => {
    const use = async (replica: RawReplica): Promise<void> => {
      const config = configFor([replica.url], ofModel as object);
      await withGateway({ config }, async (gateway) => {
        for (let i = 0; i < 4; i++) {
          const got = await stream(gateway);
          expect(got.status).toBe(200);
          expect(got.text.match(/"content":"[abc]"/g)).toHaveLength(3);
          expect(got.headers.get('x-sluice-attempts')).toBe('1');
        }
        const knowsOption = refused !== 'stream_options';
        expect(askedFor(replica, 'include_usage')).toEqual(
          knowsOption ? [true, false, true, true, true] : [true, false, true, false, false, false],
        );
        expect(askedFor(replica, 'continuous_usage_stats')).toEqual(
          askedFor(replica).map((_, i) => i === 0),
        );
        const page = await gateway.metrics();
        const calls = total(page, 'sluice_stream_options_refused_total', { replica: 'r1' });
        expect(calls).toBe(knowsOption ? 1 : 2);
        expect(total(page, 'sluice_replica_errors_total')).toBe(0);
        await gateway.said('continuous_usage_refused');
        if (!knowsOption) await gateway.said('stream_options_refused');
        const lines = gateway.output();
        expect(lines.split('continuous_usage_refused')).toHaveLength(2);
        expect(lines.split('stream_options_refused')).toHaveLength(knowsOption ? 1 : 2);
      });
    };
    await withRefusing(jsonAnswer({ detail: [fastapi] }, 422), use, refused);
  });

  test('a hedge at a replica that knows the option is asked for its usage', async () => {
    await withRefusing(jsonAnswer({ error: groq }, 400), async (refusing) => {
      await withRefusing(wholeStream.toString('latin1'), async (knowing) => {
        const config = configFor([refusing.url, knowing.url], { policy: 'round_robin' });
        await withGateway({ config }, async (gateway) => {
          for (let i = 0; i < 2; i++) expect((await stream(gateway)).status).toBe(200);
          expect(askedFor(refusing)).toEqual([true, false]);
          refusing.respond = () => {}; // the turn is its, and it does not answer
          const body = chatBody('hi', { stream: true });
          const got = await post(gateway.url, body, { 'x-sluice-hedge': '1' });
          expect(got.headers.get('x-sluice-replica')).toBe('r2');
          expect(got.headers.get('x-sluice-attempts')).toBe('2');
          expect(got.text).toContain('[DONE]');
          expect(askedFor(refusing)).toEqual([true, false, false]);
          expect(askedFor(knowing)).toEqual([true, true]);
        });
      });
    });
  });

  test.each([
    ['stream_options', [true, false, true, false, false]],
    ['continuous_usage_stats', [true, false, true, true]],
  ])('a stream goes on at a replica that has refused %s', async (refused, asked) => {
    const use = async (refusing: RawReplica): Promise<void> => {
      await withRefusing(wholeStream.toString('latin1'), async (knowing) => {
        const ofModel = { policy: 'round_robin', continuation: 'text' };
        const config = configFor([refusing.url, knowing.url], ofModel);
        await withGateway({ config }, async (gateway) => {
          const isLearnt = () => askedFor(refusing).length >= asked.length - 1;
          for (let i = 0; i < 6 && !isLearnt(); i++) {
            expect((await stream(gateway)).status).toBe(200);
          }
          knowing.respond = cutStream; // the turn is its
          const { text } = await stream(gateway);
          expect(text.match(/"content":"[zabc]"/g)).toHaveLength(4);
          expect(text).toContain('[DONE]');
          expect(text).not.toContain('error');
          expect(askedFor(refusing, 'include_usage')).toEqual(asked);
          const last = refusing.requests.findLast(({ method }) => method === 'POST');
          expect(last?.body.includes('continue_final_message')).toBe(true);
          expect(last?.body.includes('continuous_usage_stats')).toBe(false);
        });
      });
    };
    await withRefusing(jsonAnswer({ detail: [fastapi] }, 422), use, refused);
  });

  // A parser that refuses duplicate keys would answer so to two of them, and not to the one of the client.
  test('a client that escapes the option does not end the usage of others', async () => {
    const twice =
      /"stream_options".*"stream\\u005foptions"|"stream\\u005foptions".*"stream_options"/;
    const strict = await RawReplica.listen((request) => {
      if (request.method === 'GET') answer(request, jsonAnswer({ data: [] }));
      else if (!twice.test(request.body.toString())) answer(request, wholeStream);
      else answer(request, jsonAnswer({ error: 'duplicate field `stream_options`' }, 422));
    });
    await withGateway({ config: configFor([strict.url]) }, async (gateway) => {
      const plain = JSON.stringify(chatBody('hi', { stream: true, stream_options: {} }));
      const body = plain.replace('stream_options', 'stream\\u005foptions');
      const headers = { 'content-type': 'application/json' };
      const request = { method: 'POST', headers, body };
      const got = await fetch(`${gateway.url}/v1/chat/completions`, request);
      expect(got.status).toBe(200);
      expect(await got.text()).toContain('[DONE]');
      expect((await stream(gateway)).status).toBe(200);
      expect(askedFor(strict, 'include_usage')).toEqual([true, true]);
      expect(total(await gateway.metrics(), 'sluice_stream_options_refused_total')).toBe(0);
    });
    await strict.close();
  });

  test('a client that asks for the usage itself is told why it gets none', async () => {
    await withRefusing(jsonAnswer({ error: groq }, 400), async (replica) => {
      await withGateway({ config: configFor([replica.url]) }, async (gateway) => {
        const got = await stream(gateway, { stream_options: { include_usage: true } });
        expect(got.status).toBe(400);
        expect(got.text).toContain("property 'stream_options' is unsupported");
        expect(askedFor(replica)).toEqual([true]);
        expect(total(await gateway.metrics(), 'sluice_stream_options_refused_total')).toBe(0);
      });
    });
  });

  // Many engines repeat the request in what they find wrong with it.
  test('a request that is wrong by itself teaches nothing: others are asked for their usage', async () => {
    await withRefusing(jsonAnswer({ error: groq }, 400), async (replica) => {
      await withGateway({ config: configFor([replica.url]) }, async (gateway) => {
        for (let i = 0; i < 2; i++) {
          const got = await stream(gateway, { user: 'broken' });
          expect(got.status).toBe(400);
          expect(got.text).not.toContain('stream_options');
        }
        expect(askedFor(replica)).toEqual([true, false, true, false]);
        expect(gateway.output()).not.toContain('stream_options_refused');
        expect((await stream(gateway)).status).toBe(200);
        expect(askedFor(replica).slice(4)).toEqual([true, false]);
      });
    });
  });

  test('each replica has its own way, and a reload that replaces one asks it anew', async () => {
    await withRefusing(jsonAnswer({ error: groq }, 400), async (refusing) => {
      await withRefusing(wholeStream.toString('latin1'), async (knowing) => {
        const config = configFor([refusing.url, knowing.url], { policy: 'round_robin' });
        await withGateway({ config }, async (gateway) => {
          for (let i = 0; i < 6; i++) expect((await stream(gateway)).status).toBe(200);
          expect(askedFor(refusing)).toEqual([true, false, false, false]);
          expect(askedFor(knowing)).toEqual([true, true, true]);
          const [model] = config.models;
          const replicas = model!.replicas.map((row) => ({ ...row, max_in_flight: 9 }));
          gateway.writeConfig({ ...config, models: [{ ...model!, replicas }] });
          const done = await adminPost(gateway.adminUrl, 'admin-token', 'reload');
          expect(done.body).toMatchObject({ replaced: ['r1', 'r2'] });
          for (let i = 0; i < 2; i++) expect((await stream(gateway)).status).toBe(200);
          expect(askedFor(refusing).slice(4)).toEqual([true, false]);
        });
      });
    });
  });

  test('the second call may fail like any other: another replica answers', async () => {
    let calls = 0;
    const dying = await RawReplica.listen((request) => {
      if (request.method === 'GET') answer(request, jsonAnswer({ data: [] }));
      else if (++calls === 1) answer(request, jsonAnswer({ error: groq }, 400));
      else request.connection.socket.destroy();
    });
    await withRefusing(wholeStream.toString('latin1'), async (knowing) => {
      const ofModel = { policy: 'round_robin' } as const;
      const config = configFor([dying.url, knowing.url], ofModel);
      await withGateway({ config }, async (gateway) => {
        for (let i = 0; i < 2; i++) {
          const got = await stream(gateway, {}, `d-${i}`);
          expect(got.status).toBe(200);
          expect(got.text).toContain('[DONE]');
        }
        expect(calls).toBeGreaterThanOrEqual(2);
        const attempts = (await events(2)).map((event) => Number(event.attempts));
        expect(Math.max(...attempts)).toBe(2);
        // A call that came to nothing has taught nothing.
        expect(gateway.output()).not.toContain('stream_options_refused');
      });
    });
    await dying.close();
  });

  test('a client that leaves between the two calls is gone for the second', async () => {
    const replica = await RawReplica.listen((request) => {
      if (request.method === 'GET') answer(request, jsonAnswer({ data: [] }));
      else if (request.body.includes('stream_options')) {
        answer(request, jsonAnswer({ error: groq }, 400));
      }
    });
    await withGateway({ config: configFor([replica.url]) }, async (gateway) => {
      const leaving = new AbortController();
      const body = JSON.stringify(chatBody('hi', { stream: true }));
      const headers = { 'content-type': 'application/json' };
      const request = { method: 'POST', headers, body, signal: leaving.signal };
      const sent = fetch(`${gateway.url}/v1/chat/completions`, request).catch(() => undefined);
      await replica.until(() => askedFor(replica).length === 2);
      const second = replica.requests.findLast(({ method }) => method === 'POST');
      leaving.abort();
      await Promise.all([sent, second?.connection.closed]);
      expect(askedFor(replica)).toEqual([true, false]);
    });
    await replica.close();
  });
});
