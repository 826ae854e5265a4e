/** Why a request went to its replica: on the admin port, and in a header of the answer when asked. */
import { describe, expect, test } from 'vitest';
import type { ExplainView } from '../support/admin-pages.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { rawPost, rawRequest } from '../support/raw-client.ts';
import {
  chatBody,
  chatPath,
  configOf,
  load,
  openStream,
  post,
  quickHealth,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';

async function explain(
  gateway: GatewayProcess,
  id: string,
): Promise<{ status: number; text: string; view: ExplainView }> {
  const response = await fetch(`${gateway.adminUrl}/admin/explain/${id}`);
  const text = await response.text();
  return { status: response.status, text, view: JSON.parse(text) as ExplainView };
}

const ask = { 'x-sluice-explain': '1' };
const noFilter = {
  ...{ not_routable: 0, paused: 0, full: 0, held: 0, ejected: 0, starting: 0 },
  ...{ no_kv_room: 0, failed_before: 0 },
  ...{ no_adapter: 0, kept: 0, not_of_batch: 0 },
};

describe.each(testEngines)('on %s', (engine) => {
  const listen = { engine };

  test('the id of an answer finds candidates, terms and the chosen replica', async () => {
    await withReplicas(2, {}, async (replicas) => {
      const config = configOf(replicas, { listen }, { policy: 'marginal_cost' });
      await withGateway({ config }, async (gateway) => {
        const body = chatBody('why', { max_tokens: 7 });
        const answer = await post(gateway.url, body, { 'x-request-id': 'why.1' });
        expect(answer.status).toBe(200);
        const id = answer.headers.get('x-request-id')!;
        const { status, view } = await explain(gateway, id);
        expect(status).toBe(200);
        expect(view.request_id).toBe('why.1');
        expect(view.attempts).toHaveLength(1);
        const [attempt] = view.attempts;
        expect(attempt).toMatchObject({
          ...{ model: 'm', policy: 'marginal_cost', chosen_by: 'policy', attempt: 1 },
          ...{ replica: answer.headers.get('x-sluice-replica'), queue_ms: 0 },
          ...{ expected_output_tokens: 7, candidates_total: 2, filtered: noFilter },
          ...{ replicas_of_model: 2 },
        });
        expect(attempt?.formula).toContain('score = ');
        expect(attempt?.candidates.map(({ replica }) => replica)).toEqual(['r1', 'r2']);
        for (const { score, terms } of attempt?.candidates ?? []) {
          const names = ['own_wait_us', 'delay_of_others_us', 'own_decode_us'];
          expect(Object.keys(terms)).toEqual(names);
          expect(score).toBeCloseTo(Object.values(terms).reduce((a, b) => a + b, 0));
        }
      });
    });
  });

  test('an answer says it in one line when asked, and not otherwise', async () => {
    await withReplicas(2, {}, async (replicas) => {
      const config = configOf(replicas, { listen }, { policy: 'least_in_flight' });
      await withGateway({ config }, async (gateway) => {
        const line =
          /^policy=least_in_flight; candidates=2; in_flight=0; pending=0; matched=0; queue=\d+ms$/;
        const whole = await post(gateway.url, chatBody('x'), { ...ask, origin: 'http://a.test' });
        expect(whole.headers.get('x-sluice-explain')).toMatch(line);
        expect(whole.headers.get('access-control-expose-headers')).toContain('x-sluice-explain');
        const stream = await openStream(gateway.url, chatBody('x', { max_tokens: 2 }), ask);
        expect(stream.headers.get('x-sluice-explain')).toMatch(line);
        await stream.ended;
        const session = await post(gateway.url, chatBody('x'), { ...ask, 'x-session-id': 's' });
        expect(session.headers.get('x-sluice-explain')).toMatch(/^policy=session; candidates=2; /);
        const silent = await post(gateway.url, chatBody('x'));
        expect(silent.headers.has('x-sluice-explain')).toBe(false);
      });
    });
  });

  test('a value that is not 1 is refused', async () => {
    await withReplicas(1, {}, async (replicas) => {
      await withGateway({ config: configOf(replicas, { listen }) }, async (gateway) => {
        for (const value of ['0', 'yes', '1, 1']) {
          const answer = await post(gateway.url, chatBody('x'), { 'x-sluice-explain': value });
          expect(answer.status).toBe(400);
          expect(JSON.parse(answer.text).error).toMatchObject({
            ...{ code: 'invalid_header', param: 'x-sluice-explain' },
          });
        }
      });
    });
  });

  test('who was left out is counted by reason', async () => {
    await withReplicas(3, {}, async (replicas) => {
      const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, max_in_flight: 1 }));
      const config = configOf([], { listen, health: quickHealth }, { replicas: rows });
      await withGateway({ config }, async (gateway) => {
        await replicas[2]!.listen(false);
        await untilReplica(gateway, 'r3', ({ healthy }) => !healthy);
        const held = post(gateway.url, chatBody('[[hold]]'), { 'x-request-id': 'held' });
        await Promise.race(replicas.slice(0, 2).map(({ gate }) => gate.arrivals(1)));
        const id = { 'x-request-id': 'beside' };
        const beside = await post(gateway.url, chatBody('x'), { ...ask, ...id });
        expect(beside.headers.get('x-sluice-explain')).toContain('candidates=1; ');
        for (const { gate } of replicas) gate.release();
        expect((await held).status).toBe(200);
        const { view } = await explain(gateway, 'beside');
        expect(view.attempts[0]).toMatchObject({
          ...{ replicas_of_model: 3, candidates_total: 1 },
          filtered: { ...noFilter, not_routable: 1, full: 1 },
        });
        const before = await explain(gateway, 'held');
        expect(before.view.attempts[0]).toMatchObject({
          ...{ candidates_total: 2, filtered: { ...noFilter, not_routable: 1 } },
        });
      });
    });
  });

  test('a request that was tried again shows both attempts, newest first', async () => {
    await withReplicas(2, {}, async (replicas) => {
      const config = configOf(replicas, { listen });
      await withGateway({ config }, async (gateway) => {
        const prompt = '[[fault:status=500]]';
        const headers = { ...ask, 'x-request-id': 'twice' };
        const answer = await post(gateway.url, chatBody(prompt), headers);
        expect(answer.headers.get('x-sluice-attempts')).toBe('2');
        expect(answer.headers.get('x-sluice-explain')).toContain('candidates=1; ');
        const { view } = await explain(gateway, 'twice');
        expect(view.attempts.map(({ attempt }) => attempt)).toEqual([2, 1]);
        expect(view.attempts.map(({ filtered }) => filtered.failed_before)).toEqual([1, 0]);
        const asked = view.attempts.map(({ replica }) => replica);
        expect(asked.sort()).toEqual(['r1', 'r2']);
      });
    });
  });

  test('an id that is none is refused, and one of a client that is none is replaced', async () => {
    await withReplicas(1, {}, async (replicas) => {
      await withGateway({ config: configOf(replicas, { listen }) }, async (gateway) => {
        const hostile = ['', '..%2f..%2fetc', '%00', 'a%0d%0ab', "'or'1", 'a/b', 'x'.repeat(129)];
        for (const id of hostile) expect((await explain(gateway, id)).status).toBe(400);
        const sent = rawPost(chatPath, chatBody('x'), 'x-request-id: <b>1</b>\r\n');
        const [answer] = (await rawRequest(gateway.port, sent)).responses;
        const id = answer?.headers.get('x-request-id') ?? '';
        expect(id).toMatch(/^[0-9a-f-]{36}$/);
        expect((await explain(gateway, id)).view.attempts).toHaveLength(1);
      });
    });
  });

  test('what 1024 newer requests came after is not recorded any more', async () => {
    await withReplicas(1, {}, async (replicas) => {
      await withGateway({ config: configOf(replicas, { listen }) }, async (gateway) => {
        await post(gateway.url, chatBody('x'), { 'x-request-id': 'old' });
        await load(gateway, { requestsMax: 1023 });
        expect((await explain(gateway, 'old')).status).toBe(200);
        await post(gateway.url, chatBody('x'), { 'x-request-id': 'new' });
        const { status, text } = await explain(gateway, 'old');
        expect(status).toBe(404);
        expect(JSON.parse(text).error.message).toContain('not recorded');
        expect((await explain(gateway, 'new')).status).toBe(200);
        expect((await explain(gateway, 'never-seen')).status).toBe(404);
      });
    });
  });
});

test('reading needs the token from elsewhere, as the slot table does', async () => {
  await withReplicas(1, {}, async (replicas) => {
    const config = configOf(replicas, { admin: { token: 'secret-of-this-test' } });
    await withGateway({ config }, async (gateway) => {
      const { port } = new URL(gateway.adminUrl);
      const head = (path: string): string =>
        `GET ${path} HTTP/1.1\r\nhost: elsewhere.test\r\nconnection: close\r\n\r\n`;
      for (const path of ['/admin/slots', '/admin/explain/x']) {
        const [answer] = (await rawRequest(Number(port), head(path))).responses;
        expect(answer?.status).toBe(401);
      }
    });
  });
});
