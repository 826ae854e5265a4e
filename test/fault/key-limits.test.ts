/** A 429 of a replica: for one client whose key is over its limits, or for everybody. */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { expectQuiet, withGateway } from '../support/gateway.ts';
import { jsonAnswer, RawReplica } from '../support/raw-replica.ts';
import { chatBody, configOf, post } from '../support/scenario.ts';

/** What the gateway would wait for if it took the 429 for its own. */
const waitSeconds = 30;

test('a client over the limits of its key is told so, and the others are served on', async () => {
  const replica = await RawReplica.listen(({ method, headers, connection: { socket } }) => {
    const isOver = headers.authorization === 'Bearer greedy';
    const limits = `retry-after: ${waitSeconds}\r\nx-ratelimit-remaining-requests: 0\r\n`;
    if (method === 'GET') socket.write(jsonAnswer({ data: [] }));
    else if (isOver) socket.write(jsonAnswer({ error: { code: 'quota' } }, 429, limits));
    else socket.write(jsonAnswer({ ok: true }));
  });
  try {
    await withGateway({ config: configOf([replica]) }, async (gateway) => {
      const ask = (key: string) =>
        post(gateway.url, chatBody('x'), { authorization: `Bearer ${key}` });
      for (let i = 0; i < 3; i++) {
        const refused = await ask('greedy');
        expect(refused.status).toBe(429);
        expect(refused.headers.get('retry-after')).toBe(`${waitSeconds}`);
        expect(refused.headers.get('x-ratelimit-remaining-requests')).toBe('0');
        expect(JSON.parse(refused.text)).toEqual({ error: { code: 'quota' } });
        const served = await ask('modest');
        expect([served.status, served.headers.get('x-sluice-attempts')]).toEqual([200, '1']);
      }
      await expectQuiet(gateway);
    });
  } finally {
    await replica.close();
  }
});

test('a full engine that says 429 is left alone by everybody, whatever key was sent', async () => {
  const replica = await RawReplica.listen(({ method, connection: { socket } }) => {
    const advice = `retry-after: ${waitSeconds}\r\n`;
    if (method === 'GET') socket.write(jsonAnswer({ data: [] }));
    else socket.write(jsonAnswer({ error: 'Model is overloaded' }, 429, advice));
  });
  try {
    await withGateway({ config: configOf([replica]) }, async (gateway) => {
      const authorization = 'Bearer EMPTY'; // what clients of such engines send
      const asked = (): number => replica.requests.filter(({ method }) => method === 'POST').length;
      const started = nowMs();
      for (let i = 0; i < 3; i++) {
        const { status, text } = await post(gateway.url, chatBody('x'), { authorization });
        expect([status, JSON.parse(text).error.code]).toEqual([429, 'rate_limit_exceeded']);
      }
      expect(nowMs() - started).toBeLessThan(waitSeconds * 1000);
      expect(asked()).toBe(1);
      await expectQuiet(gateway);
    });
  } finally {
    await replica.close();
  }
});
