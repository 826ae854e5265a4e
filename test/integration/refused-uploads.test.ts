/** Clients that are refused while they send their body: they read the answer, and cannot stay. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { discardMs } from '../../src/acceptor/listener.ts';
import { AcceptorHarness } from '../support/acceptor-harness.ts';
import { chat, post } from '../support/acceptor-wire.ts';
import { parseResponses, RawClient } from '../support/raw-client.ts';
import { hiddenRequest } from '../support/smuggling-shapes.ts';

const mebibyte = 1024 * 1024;
const path = '/v1/chat/completions';

describe.each(['uws', 'node'] as const)('refused uploads, engine %s', (engine) => {
  let harness: AcceptorHarness;
  let arrivals = 0;
  beforeAll(async () => {
    harness = await AcceptorHarness.start({ engine, maxBody: mebibyte, slots: 16 });
    harness.onArrival = (arrival) => {
      arrivals++;
      harness.whole(arrival, '{"fine":true}');
    };
  });
  afterEach(async () => {
    await harness.quiet();
    expect(harness.counter('handlerErrors')).toBe(0);
  });
  afterAll(async () => {
    expect(await harness.stop()).toBe(0);
  });

  const upload = async (url: string, body: Buffer | ReadableStream): Promise<[number, string]> => {
    const init = { method: 'POST', body, duplex: 'half' } as RequestInit;
    const answer = await fetch(`http://127.0.0.1:${harness.port}${url}`, init);
    const { error } = (await answer.json()) as { error: { code: string } };
    return [answer.status, error.code];
  };

  const chunksOf = (size: number): ReadableStream =>
    new ReadableStream({
      pull(controller) {
        if (size <= 0) return controller.close();
        controller.enqueue(new Uint8Array(64 * 1024).fill(120));
        size -= 64 * 1024;
      },
    });

  test.each([8, 32])('%d MiB above a cap of 1 MiB are answered with 413, ten of ten', async (n) => {
    const body = Buffer.alloc(n * mebibyte, 120);
    for (let i = 0; i < 10; i++) expect(await upload(path, body)).toEqual([413, 'body_too_large']);
  });

  test('so is a chunked upload of 8 MiB', async () => {
    for (let i = 0; i < 10; i++) {
      expect(await upload(path, chunksOf(8 * mebibyte))).toEqual([413, 'body_too_large']);
    }
  });

  test('an unknown path says 404 to 8 MiB', async () => {
    const body = Buffer.alloc(8 * mebibyte, 120);
    for (let i = 0; i < 10; i++)
      expect(await upload('/v1/none', body)).toEqual([404, 'unknown_url']);
  });

  test('a request behind the refused body never runs', async () => {
    const before = arrivals;
    const refused = post(chat({ pad: 'x'.repeat(2 * mebibyte) }));
    for (const cut of [refused.length, refused.length - 1, 200]) {
      const client = await RawClient.connect(harness.port);
      await client.send(refused.slice(0, cut));
      await client.until((bytes) => bytes.includes('413'));
      await client.send(refused.slice(cut) + hiddenRequest);
      await client.closed;
      const { responses } = parseResponses(client.received, true);
      expect(responses.map(({ status }) => status)).toEqual([413]);
    }
    expect(arrivals).toBe(before);
  });

  test('a client that never sends the body is gone after the wait', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(`POST ${path} HTTP/1.1\r\nhost: t\r\ncontent-length: 5000000\r\n\r\n`);
    const { responses } = await client.responses(1);
    expect(responses[0]).toMatchObject({ status: 413, complete: true });
    const started = performance.now();
    expect(await client.closed).toBe('fin');
    expect(performance.now() - started).toBeLessThan(discardMs + 4000);
  });

  test('one that ends its body is let go at once with a FIN', async () => {
    const client = await RawClient.connect(harness.port);
    const body = 'x'.repeat(2 * mebibyte);
    await client.send(`POST ${path} HTTP/1.1\r\nhost: t\r\ncontent-length: ${body.length}\r\n\r\n`);
    await client.responses(1);
    await client.send(body);
    expect(await client.closed).toBe('fin');
  });
});
