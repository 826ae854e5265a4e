/** The node:http engine by itself: what its timers and later turns do where a client or a caller fails. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Exchange, Listener } from '../../src/acceptor/listener.ts';
import { listenNode } from '../../src/acceptor/listener-node.ts';
import { chat, post } from '../support/acceptor-wire.ts';
import { eventually } from '../support/until.ts';

/** Longer than the engine waits for a client that takes nothing. */
const stalledMs = 21_000;

let listener: Listener;
let exchanges: Exchange[];
let failures: unknown[];
let client: Socket;

beforeEach(async () => {
  // The engine's own clock and sweep; sockets and waits of the test go on as ever.
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] });
  exchanges = [];
  failures = [];
  const peer = { body: () => {}, writable: () => {}, gone: () => {} };
  const options = { host: '127.0.0.1', port: 0, tls: null, maxConnections: 10 };
  listener = await listenNode(options, {
    open: (_head, exchange) => {
      exchanges.push(exchange);
      return peer;
    },
    takesConnection: () => true,
    reject: () => {},
    failed: (error) => failures.push(error),
  });
  client = connect(listener.port, '127.0.0.1');
  client.on('error', () => {});
  client.write(post(chat()));
  await eventually('the request is open', () => exchanges.length === 1);
});

afterEach(async () => {
  client.destroy();
  await listener.close();
  vi.useRealTimers();
});

/** Writes until what the client does not read is in the buffers of both sockets, and stays there. */
async function fill(exchange: Exchange): Promise<void> {
  const piece = Buffer.alloc(12 * 1024);
  exchange.begin(200, ['content-type', 'text/plain']);
  let looks = 0;
  while (looks < 20) {
    if (exchange.isBlocked) looks++;
    else looks = 0;
    while (!exchange.isBlocked) exchange.write(piece, 0, piece.length);
    await sleep(5);
  }
}

test('a client that leaves the end of its answer in our socket is dropped', async () => {
  const [exchange] = exchanges as [Exchange];
  client.pause();
  await fill(exchange);
  exchange.end();
  expect(listener.connections).toBe(1);
  vi.advanceTimersByTime(stalledMs);
  await eventually('the connection is gone', () => listener.connections === 0);
  expect(failures).toEqual([]);
});

test('a client that reads on gets the whole of it', async () => {
  const [exchange] = exchanges as [Exchange];
  client.pause();
  await fill(exchange);
  exchange.end();
  let isComplete = false;
  client.on('data', (bytes) => {
    isComplete ||= bytes.subarray(-5).toString() === '0\r\n\r\n';
  });
  client.resume();
  await eventually('the last chunk', () => isComplete);
  vi.advanceTimersByTime(stalledMs);
  expect(exchange.isOpen).toBe(false);
});

test('an answer that cannot be written is counted, and its connection is closed', async () => {
  const [exchange] = exchanges as [Exchange];
  exchange.answerAndClose(400, ['no header name', 'x'], Buffer.from('{}'));
  await eventually('the connection is gone', () => listener.connections === 0);
  expect(failures).toHaveLength(1);
});
