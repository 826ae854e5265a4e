/** What a replica answers reaches the client byte for byte, judged as complete or not. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { Outcome } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import type { ForwarderHarness } from '../support/forwarder-harness.ts';
import { forwarderForAll } from '../support/forwarder-suite.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  type RawReplica,
  roleEvent,
  sseHead,
  tokenEvent,
  usageEvent,
} from '../support/raw-replica.ts';

let replica: RawReplica;
let harness: ForwarderHarness;
forwarderForAll({ apiKey: 'replica-key' }, (one, of) => {
  harness = one;
  replica = of;
});

/** Sends one request that is answered with `bytes`, then ended by the replica when `fin`. */
async function answerWith(bytes: string | Buffer, fin = false) {
  replica.respond = ({ connection }) => {
    connection.socket.write(bytes);
    if (fin) connection.socket.end();
  };
  const request = harness.send();
  await request.ended();
  harness.free(request);
  return request;
}

describe('the request', () => {
  test('reaches the replica with the bytes of the arena and the headers of the blob', async () => {
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({ ok: true }));
    const body = Buffer.from('{"model":"m","seed":9223372036854775807,"x":"\u00e9\\ud800"}');
    const request = await harness
      .send({
        body,
        headers: [
          ':path',
          '/v1/other',
          'content-type',
          'application/json',
          'x-request-id',
          'id-7',
          'traceparent',
          '00-1-2-01',
          'connection',
          'upgrade',
          'authorization',
          'Bearer of-the-client',
        ],
      })
      .ended();
    harness.free(request);
    const seen = replica.requests.at(-1)!;
    expect(seen.method).toBe('POST');
    expect(seen.path).toBe('/v1/other');
    expect(seen.body.equals(body)).toBe(true);
    expect(seen.headers).toEqual({
      host: `127.0.0.1:${replica.port}`,
      connection: 'keep-alive',
      'accept-encoding': 'identity',
      authorization: 'Bearer replica-key',
      'content-type': 'application/json',
      'x-request-id': 'id-7',
      traceparent: '00-1-2-01',
      'content-length': String(body.length),
    });
  });

  test('a body of 5 MB arrives unchanged', async () => {
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({}));
    const body = Buffer.alloc(5_000_000, 'prompt ');
    const request = await harness.send({ body }).ended();
    harness.free(request);
    const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    expect(hash(replica.requests.at(-1)!.body)).toBe(hash(body));
  });

  test('a route without a body is a GET without one', async () => {
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({ id: 'resp_1' }));
    const request = await harness
      .send({ route: 21, body: '', headers: [':path', '/v1/responses/resp_1'] })
      .ended();
    harness.free(request);
    const seen = replica.requests.at(-1)!;
    expect([seen.method, seen.path]).toEqual(['GET', '/v1/responses/resp_1']);
    expect(seen.headers['content-length']).toBeUndefined();
  });
});

describe('a whole answer', () => {
  test('is one record that settles, with usage and allowed headers only', async () => {
    const value = { id: 'c', choices: [], usage: { prompt_tokens: 11, completion_tokens: 4 } };
    const request = await answerWith(
      jsonAnswer(value, 200, 'set-cookie: a=b\r\nserver: x\r\nopenai-model: m\r\n'),
    );
    expect(request.end).toEqual({ error: 0, whole: true });
    expect(JSON.parse(request.text)).toEqual(value);
    expect(request.head?.status).toBe(200);
    expect(request.headers).toEqual(['content-type', 'application/json', 'openai-model', 'm']);
    expect(request.released).toEqual([
      { outcome: Outcome.ok, error: 0, retryAfterMs: 0, state: SlotState.settled },
    ]);
    expect(request.started).toBe(0);
    expect(harness.column(request.slot, 'promptTokens')).toBe(11);
    expect(harness.column(request.slot, 'completionTokens')).toBe(4);
    expect(harness.column(request.slot, 'cachedTokens')).toBe(-1);
  });

  test('chunked, in pieces, is still one record', async () => {
    replica.respond = async ({ connection: { socket } }) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chun');
      await new Promise((resolve) => setTimeout(resolve, 5));
      socket.write('ked\r\n\r\n3\r\n{"a\r\n');
      await new Promise((resolve) => setTimeout(resolve, 5));
      socket.write('4\r\n":1}\r\n0\r\n\r\n');
    };
    const request = await harness.send().ended();
    harness.free(request);
    expect(request.text).toBe('{"a":1}');
    expect(request.end?.whole).toBe(true);
  });

  test('larger than the window it is passed on in chunks', async () => {
    const value = { data: 'x'.repeat(300_000) };
    const request = await answerWith(jsonAnswer(value));
    expect(request.end).toEqual({ error: 0, whole: false });
    expect(request.started).toBe(1);
    expect(request.head?.contentLength).toBe(JSON.stringify(value).length);
    expect(JSON.parse(request.text)).toEqual(value);
  });

  test('204 has no body', async () => {
    const request = await answerWith('HTTP/1.1 204 No Content\r\n\r\n');
    expect(request.end?.whole).toBe(true);
    expect(request.head?.status).toBe(204);
    expect(request.text).toBe('');
  });

  test('a 400 of the replica passes unchanged and blames the client', async () => {
    const request = await answerWith(jsonAnswer({ error: { message: 'too long' } }, 400));
    expect(request.head?.status).toBe(400);
    expect(JSON.parse(request.text)).toEqual({ error: { message: 'too long' } });
    expect(request.released[0]?.outcome).toBe(Outcome.clientError);
  });

  test('103 before it is skipped', async () => {
    const request = await answerWith(
      `HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${jsonAnswer({ ok: 1 })}`,
    );
    expect(request.head?.status).toBe(200);
  });

  test.each([
    ['a list', 'application/json', '[{"index":0,"score":1}]'],
    ['what is no JSON', 'audio/mpeg', 'ID3 frames'],
  ])('%s without a length is complete at the end of the connection', async (_name, type, body) => {
    const head = `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\nconnection: close\r\n\r\n`;
    const request = await answerWith(head + body, true);
    expect(request.text).toBe(body);
    expect(request.end).toEqual({ error: 0, whole: true });
  });
});

const stream = [
  ': welcome\n\n',
  roleEvent,
  tokenEvent('h\u00e9llo \u{1f30d}'),
  tokenEvent('w\u00f6rld').replaceAll('\n', '\r\n'),
  tokenEvent('!').replaceAll('\n', '\r'),
  finishEvent,
  usageEvent,
  doneEvent,
].join('');

describe('a stream', () => {
  test('passes byte for byte and leaves usage and times behind', async () => {
    const before = harness
      .snapshot()
      .buckets(metrics.timeToFirstToken, 0)
      .reduce((a, b) => a + b);
    const request = await answerWith(
      Buffer.concat([Buffer.from(sseHead), chunk(stream), Buffer.from(lastChunk)]),
    );
    expect(request.text).toBe(stream);
    expect(request.end).toEqual({ error: 0, whole: false });
    expect(request.started).toBe(1);
    expect(request.head?.contentLength).toBe(-1);
    expect(harness.column(request.slot, 'promptTokens')).toBe(7);
    expect(harness.column(request.slot, 'completionTokens')).toBe(3);
    expect(harness.column(request.slot, 'cachedTokens')).toBe(2);
    const { slots } = harness;
    const at = slots.at;
    const times = [at.arrivedUs, at.sentUs, at.firstByteUs, at.firstTokenUs, at.endedUs].map(
      (field) => slots.readTime(request.slot, field),
    );
    expect(times.every((time) => time > 0)).toBe(true);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    const after = harness
      .snapshot()
      .buckets(metrics.timeToFirstToken, 0)
      .reduce((a, b) => a + b);
    expect(after - before).toBe(1);
  });

  test('a burst of small chunks in one read becomes one record', async () => {
    const events = Array.from({ length: 40 }, (_, i) => tokenEvent(`t${i} `));
    const bytes = [sseHead, ...[...events, doneEvent].map(chunk), lastChunk];
    const request = await answerWith(Buffer.concat(bytes.map((part) => Buffer.from(part))));
    expect(request.text).toBe(events.join('') + doneEvent);
    expect(request.records.length).toBe(1);
  });

  test('T11: split at every byte offset it is the same stream', async () => {
    const bytes = Buffer.from(stream);
    let cut = 0;
    replica.respond = ({ connection: { socket } }) => {
      // The second piece leaves in a later turn of the loop, so it is another read.
      socket.write(Buffer.concat([Buffer.from(sseHead), chunk(bytes.subarray(0, cut))]));
      setImmediate(() =>
        socket.write(Buffer.concat([chunk(bytes.subarray(cut)), Buffer.from(lastChunk)])),
      );
    };
    for (cut = 1; cut < bytes.length; cut++) {
      const request = await harness.send().ended();
      harness.free(request);
      expect(request.end).toEqual({ error: 0, whole: false });
      expect(Buffer.concat(request.body).equals(bytes), `cut at ${cut}`).toBe(true);
    }
  });

  test('byte by byte it is the same stream', async () => {
    const parts = [...Buffer.from(stream)].map((byte) => chunk(Buffer.of(byte)));
    const request = await answerWith(
      Buffer.concat([Buffer.from(sseHead), ...parts, Buffer.from(lastChunk)]),
    );
    expect(request.text).toBe(stream);
  });

  test('T24: events of 14, 16, 17 and 64 KB keep their bytes', async () => {
    const sizes = [14, 16, 17, 64];
    const events = sizes.map((kb) => tokenEvent('x'.repeat(kb * 1024)));
    const all = [roleEvent, ...events, doneEvent].join('');
    const request = await answerWith(
      Buffer.concat([Buffer.from(sseHead), chunk(all), Buffer.from(lastChunk)]),
    );
    const hash = (text: string) => createHash('sha256').update(text).digest('hex');
    expect(hash(request.text)).toBe(hash(all));
  });

  test('T13: an event of 20 MB is cut with an error and little memory', async () => {
    replica.respond = ({ connection: { socket } }) => {
      socket.write(sseHead);
      socket.write(chunk(tokenEvent('first')));
      let left = 20;
      const more = (): void => {
        while (left > 0 && !socket.destroyed) {
          left--;
          const piece = chunk(Buffer.alloc(1024 * 1024, 'x'));
          if (!socket.write(left === 19 ? Buffer.concat([chunk('data: {"a":"'), piece]) : piece)) {
            socket.once('drain', more);
            return;
          }
        }
      };
      more();
    };
    const request = await harness.send().ended();
    harness.free(request);
    expect(request.text).toBe(tokenEvent('first'));
    expect(request.end?.error).toBe(errors.EVENT_TOO_LARGE.number);
    await replica.requests.at(-1)!.connection.closed;
    // What the replica could push is bounded by the event cap and the socket buffers between.
    expect(replica.requests.at(-1)!.connection.socket.bytesWritten).toBeLessThan(12_000_000);
  });

  test('after [DONE] nothing more is passed and the end is not awaited', async () => {
    const request = await answerWith(
      Buffer.concat([
        Buffer.from(sseHead),
        chunk(tokenEvent('a') + doneEvent),
        chunk('data: {"late":1}\n\ngarbage'),
      ]),
    );
    expect(request.text).toBe(tokenEvent('a') + doneEvent);
    expect(request.end?.error).toBe(0);
    // The connection is not kept for a replica that never ends its answer.
    await replica.requests.at(-1)!.connection.closed;
  });
});

describe('T12: streams that are not as they should be', () => {
  const t = tokenEvent('a');
  const payload = t.slice('data: '.length).trimEnd();
  const rows: readonly [string, string, string | undefined, number][] = [
    ['LF', t + doneEvent, undefined, 0],
    ['CRLF', (t + doneEvent).replaceAll('\n', '\r\n'), undefined, 0],
    ['CR only', (t + doneEvent).replaceAll('\n', '\r'), undefined, 0],
    ['mixed line ends', `data: ${payload}\r\n\n${doneEvent}`, undefined, 0],
    ['no space after the colon', `data:${payload}\n\ndata:[DONE]\n\n`, undefined, 0],
    ['two spaces after the colon', `data:  ${payload}\n\n${doneEvent}`, undefined, 0],
    ['BOM at the start', `\ufeff${t}${doneEvent}`, undefined, 0],
    ['comments', `: ping\n\n${t}:\n\n${doneEvent}`, undefined, 0],
    ['comment inside an event', `: c\ndata: ${payload}\n\n${doneEvent}`, undefined, 0],
    ['event field', `event: message\ndata: ${payload}\n\n${doneEvent}`, undefined, 0],
    ['id and retry fields', `id: 1\nretry: 10\ndata: ${payload}\n\n${doneEvent}`, undefined, 0],
    ['unknown field', `foo: bar\ndata: ${payload}\n\n${doneEvent}`, undefined, 0],
    ['field without colon', `data\n\n${t}${doneEvent}`, `${t}${doneEvent}`, 0],
    [
      'multi-line data',
      `data: {"choices":\ndata: [{"index":0,"delta":{"content":"a"}}]}\n\n${doneEvent}`,
      undefined,
      0,
    ],
    ['blank lines between', `\n\n\n${t}\n\n\n${doneEvent}`, undefined, 0],
    ['usage before [DONE]', t + finishEvent + usageEvent + doneEvent, undefined, 0],
    ['trailing space after [DONE]', `${t}data: [DONE] \n\n`, undefined, 0],
    ['[DONE] without its blank line', `${t}data: [DONE]\n`, `${t}data: [DONE]\n\n`, 0],
    ['[DONE] without any line end', `${t}data: [DONE]`, `${t}data: [DONE]\n\n`, 0],
    ['finish reason and no [DONE]', t + finishEvent, undefined, 0],
    ['JSON garbage between', `${t}data: {"a":}\n\n${t}${doneEvent}`, t + t + doneEvent, 0],
    ['JSON garbage first', `data: {"a":}\n\n${t}${doneEvent}`, t + doneEvent, 0],
    ['text instead of JSON', `${t}data: hello\n\n${doneEvent}`, t + doneEvent, 0],
    ['unclosed JSON', `${t}data: {"a":1\n\n${doneEvent}`, t + doneEvent, 0],
    ['two objects in one event', `${t}data: {}{}\n\n${doneEvent}`, t + doneEvent, 0],
    ['empty data', `${t}data:\n\n${doneEvent}`, t + doneEvent, 0],
    ['NUL in data', `${t}data: \0\n\n${doneEvent}`, t + doneEvent, 0],
    ['no [DONE] and no finish reason', t, t, errors.TRUNCATED_STREAM.number],
    [
      'cut in the middle of an event',
      `${t}data: {"choices":[{"ind`,
      t,
      errors.TRUNCATED_STREAM.number,
    ],
    ['cut in [DONE]', `${t}data: [DON`, t, errors.TRUNCATED_STREAM.number],
    [
      'error event after tokens',
      `${t}data: {"error":{"message":"x"}}\n\n${doneEvent}`,
      t,
      errors.ERROR_EVENT.number,
    ],
    [
      'event: error after tokens',
      `${t}event: error\ndata: {}\n\n${doneEvent}`,
      t,
      errors.ERROR_EVENT.number,
    ],
  ];
  test.each(rows)('%s', async (_name, sent, expected, error) => {
    const request = await answerWith(
      Buffer.concat([Buffer.from(sseHead), chunk(sent), Buffer.from(lastChunk)]),
    );
    expect(request.text).toBe(expected ?? sent);
    expect(request.end).toEqual({ error, whole: false });
  });
});
