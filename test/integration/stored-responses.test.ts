/**
 * Stored responses through the whole gateway: only the replica that made one can answer for it, so every
 * answer proves where the request went. Four replicas, both engines.
 */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { replicaInProcess } from '../support/replica.ts';
import {
  ask,
  count,
  create,
  get,
  makerOf,
  names,
  ResponsesScene,
  samples,
  servedBy,
  token,
} from '../support/stored-responses.ts';
import { reached } from '../support/traffic.ts';

describe.each(testEngines)('without keys, engine %s', (engine) => {
  let scene: ResponsesScene;
  let gateway: GatewayProcess;
  beforeAll(async () => {
    scene = await ResponsesScene.start(engine, {
      splits: [
        {
          name: 'both',
          models: [
            { model: 'm', weight: 1 },
            { model: 'other', weight: 1 },
          ],
        },
      ],
    });
    gateway = scene.gateway;
  });
  afterAll(() => scene?.close());

  test('a response is got, gone on with, listed and deleted where it was made', async () => {
    const makers = new Set<string>();
    for (let i = 0; i < 12; i++) {
      const made = await create(gateway.url);
      const { id } = made.body;
      makers.add(makerOf(id));
      expect(servedBy(made)).toBe(makerOf(id));
      const got = await get(gateway.url, id);
      expect([got.status, got.body, servedBy(got)]).toEqual([200, made.body, makerOf(id)]);
      const next = await create(gateway.url, { previous_response_id: id });
      expect([next.status, next.body.previous_response_id]).toEqual([200, id]);
      expect(makerOf(next.body.id)).toBe(makerOf(id));
      const items = await ask(gateway.url, 'GET', `/v1/responses/${id}/input_items?limit=1`);
      expect([items.status, servedBy(items)]).toEqual([200, makerOf(id)]);
      const cancelled = await ask(gateway.url, 'POST', `/v1/responses/${id}/cancel`);
      expect([cancelled.status, servedBy(cancelled)]).toEqual([400, makerOf(id)]);
      const gone = await ask(gateway.url, 'DELETE', `/v1/responses/${id}`);
      expect([gone.status, servedBy(gone)]).toEqual([200, makerOf(id)]);
      const again = await get(gateway.url, id);
      expect([again.status, servedBy(again)]).toEqual([404, null]);
      expect(again.body.error).toMatchObject({ code: 'response_not_found', param: 'response_id' });
    }
    expect(makers.size).toBeGreaterThan(1);
  });

  test('thirty conversations of five turns at once stay where they began', async () => {
    const talk = async (): Promise<void> => {
      let { id } = (await create(gateway.url)).body;
      const maker = makerOf(id);
      for (let turn = 0; turn < 5; turn++) {
        const next = await create(gateway.url, { previous_response_id: id, stream: false });
        expect([next.status, makerOf(next.body.id)]).toEqual([200, maker]);
        id = next.body.id;
      }
    };
    await Promise.all(Array.from({ length: 30 }, talk));
  });

  test('a session, a hedge and a deadline that others ask for change nothing', async () => {
    const { id } = (await create(gateway.url)).body;
    const headers = { 'x-sluice-hedge': '1', 'x-session-id': 's', 'x-sluice-explain': '1' };
    for (let i = 0; i < 8; i++) {
      const next = await create(
        gateway.url,
        { previous_response_id: id },
        { ...headers, 'x-session-id': `s${i}` },
      );
      expect([next.status, servedBy(next)]).toEqual([200, makerOf(id)]);
      expect(next.headers.get('x-sluice-attempts')).toBe('1');
      expect(next.headers.get('x-sluice-explain')).toContain('policy=pin; candidates=1');
    }
  });

  test('the id of a stream is known as soon as the client has it', async () => {
    for (let i = 0; i < 6; i++) {
      const body = { model: 'm', input: 'x', stream: true, max_output_tokens: 8 };
      const stream = await fetch(`${gateway.url}/v1/responses`, {
        ...{ method: 'POST', body: JSON.stringify(body) },
        headers: { 'content-type': 'application/json' },
      });
      const text = await stream.text();
      const id = /"response":\{"id":"([^"]+)"/.exec(text)![1]!;
      const got = await get(gateway.url, id);
      expect([got.status, servedBy(got)]).toEqual([200, makerOf(id)]);
      const replay = await fetch(`${gateway.url}/v1/responses/${id}?stream=true`);
      expect(replay.headers.get('content-type')).toContain('text/event-stream');
      expect(await replay.text()).toBe(text);
      const rest = await fetch(`${gateway.url}/v1/responses/${id}?stream=true&starting_after=3`);
      const numbers = [...(await rest.text()).matchAll(/"sequence_number":(\d+)/g)];
      expect(numbers.map(([, n]) => Number(n))).toEqual(numbers.map((_, n) => n + 4));
      expect(
        text.endsWith(
          await (
            await fetch(`${gateway.url}/v1/responses/${id}?stream=true&starting_after=3`)
          ).text(),
        ),
      ).toBe(true);
    }
  });

  test('a response larger than a record is noted as well', async () => {
    const made = await create(gateway.url, { max_output_tokens: 60_000, input: '[[len=60000]]' });
    expect(JSON.stringify(made.body).length).toBeGreaterThan(200_000);
    const got = await get(gateway.url, made.body.id);
    expect([got.status, servedBy(got)]).toEqual([200, makerOf(made.body.id)]);
    expect(got.body).toEqual(made.body);
  });

  test('what was asked not to be stored is not known', async () => {
    const kept = await count(gateway, 'kept');
    const { id } = (await create(gateway.url, { store: false })).body;
    expect((await get(gateway.url, id)).status).toBe(404);
    expect(await count(gateway, 'kept')).toBe(kept);
    const { id: stored } = (await create(gateway.url, { store: true })).body;
    expect((await get(gateway.url, stored)).status).toBe(200);
    expect(await count(gateway, 'kept')).toBe(kept + 1);
  });

  test('nobody is asked for an id that is not known', async () => {
    const started = (): number =>
      scene.replicas.reduce((sum, replica) => sum + replica.stats().started, 0);
    const before = started();
    for (const id of ['resp_x', 'x', 'resp_a-999999', 'a'.repeat(256)]) {
      expect((await get(gateway.url, id)).body.error).toMatchObject({
        ...{ code: 'response_not_found', type: 'invalid_request_error', param: 'response_id' },
        message: expect.stringContaining('not known to this gateway'),
      });
      const next = await create(gateway.url, { previous_response_id: id });
      expect(next.status).toBe(404);
      expect(next.body.error).toMatchObject({ param: 'previous_response_id' });
    }
    for (const previous_response_id of ['\u0000', '"}', 'x'.repeat(5000), 'é']) {
      expect((await create(gateway.url, { previous_response_id })).status).toBe(404);
    }
    expect(started()).toBe(before);
    // No id at all, or none of text: the replica judges.
    for (const previous_response_id of [null, '', 7]) {
      const { status } = await create(gateway.url, { previous_response_id });
      expect(status, String(previous_response_id)).toBe(previous_response_id === '' ? 404 : 200);
    }
  });

  test('a model of other replicas cannot go on with it, a name that reaches them can', async () => {
    const { id } = (await create(gateway.url)).body;
    const other = await create(gateway.url, { model: 'other', previous_response_id: id });
    // `other` has one replica; where only one could have it, it would be asked: here the id is known.
    expect(other.status).toBe(404);
    expect(other.body.error?.message).toContain('kept by a replica of the model m.');
    for (let i = 0; i < 6; i++) {
      const { body } = await create(gateway.url, { model: 'both' });
      const next = await create(gateway.url, { model: 'both', previous_response_id: body.id });
      expect([next.status, makerOf(next.body.id)]).toEqual([200, makerOf(body.id)]);
    }
  });

  test('where only one replica of a model could have it, it is asked', async () => {
    const next = await create(gateway.url, {
      model: 'other',
      previous_response_id: 'resp_d-99999',
    });
    expect([next.status, servedBy(next)]).toEqual([404, 'd']);
    expect(next.body.error?.message).toContain("'resp_d-99999' not found");
  });

  test('in the background: got while it waits, cancelled, and not twice', async () => {
    const slow = await replicaInProcess({ name: 'slow', profile: 'uniform:60s-60s' });
    await withGateway(
      {
        config: {
          listen: { engine },
          models: [
            {
              name: 'm',
              replicas: [{ url: slow.url }, { url: scene.replicas[0]!.url, weight: 0.001 }],
            },
          ],
        },
      },
      async ({ url }) => {
        const ids: string[] = [];
        for (let i = 0; i < 3; i++) ids.push((await create(url, { background: true })).body.id);
        const id = ids.find((each) => makerOf(each) === 'slow')!;
        expect((await get(url, id)).body.status).toBe('queued');
        const cancelled = await ask(url, 'POST', `/v1/responses/${id}/cancel`, {});
        expect([cancelled.status, cancelled.body.status]).toEqual([200, 'cancelled']);
        expect((await get(url, id)).body.status).toBe('cancelled');
      },
    );
    await slow.close();
  });

  test('requests by id are counted and logged, and use no tokens', async () => {
    const { id } = (await create(gateway.url)).body;
    const tokens = async (): Promise<number> => {
      const of = await samples(gateway, 'sluice_tokens_total');
      return [...of.values()].reduce((sum, value) => sum + value, 0);
    };
    const before = await tokens();
    const requestId = `by-id-${engine}`;
    expect((await get(gateway.url, id, { 'x-request-id': requestId })).status).toBe(200);
    const line = await logged(gateway, requestId);
    expect(line).toMatchObject({ model: 'm', replica: makerOf(id), status: 200, attempts: 1 });
    expect(line).not.toHaveProperty('out_tok');
    expect(await tokens()).toBe(before);
  });

  test('the official client', async () => {
    const client = new OpenAI({ apiKey: 'none', baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    for (let i = 0; i < 4; i++) {
      const first = await client.responses.create({ model: 'm', input: 'one' });
      const next = await client.responses.create({
        model: 'm',
        input: 'two',
        previous_response_id: first.id,
      });
      expect(makerOf(next.id)).toBe(makerOf(first.id));
      expect(await client.responses.retrieve(next.id)).toMatchObject({
        id: next.id,
        output_text: next.output_text,
      });
      const events = [];
      for await (const event of await client.responses.retrieve(next.id, {
        stream: true,
        starting_after: 1,
      })) {
        events.push(event.type);
      }
      expect(events.at(-1)).toBe('response.completed');
      expect(events).not.toContain('response.created');
      const { data } = await client.responses.inputItems.list(next.id);
      expect(data).toMatchObject([{ role: 'user' }]);
      await expect(client.responses.cancel(next.id)).rejects.toMatchObject({ status: 400 });
      await client.responses.delete(next.id);
      const error = await client.responses.retrieve(next.id).catch((failure: unknown) => failure);
      expect(error).toBeInstanceOf(OpenAI.NotFoundError);
      expect(error).toMatchObject({ code: 'response_not_found', param: 'response_id' });
      const stream = client.responses.stream({
        model: 'm',
        input: 'x',
        previous_response_id: first.id,
      });
      const last = await stream.finalResponse();
      expect(makerOf(last.id)).toBe(makerOf(first.id));
    }
  });

  test('a replica that drains serves what it keeps; one that was removed is named as the reason', async () => {
    const made = await create(gateway.url);
    const { id } = made.body;
    const name = makerOf(id);
    const admin = (page: string, body?: object) => adminPost(gateway.adminUrl, token, page, body);
    expect((await admin(`replicas/${name}/drain`)).status).toBe(200);
    for (let i = 0; i < 6; i++) expect(servedBy(await create(gateway.url))).not.toBe(name);
    expect((await get(gateway.url, id)).body).toEqual(made.body);
    const next = await create(gateway.url, { previous_response_id: id });
    expect([next.status, servedBy(next)]).toEqual([200, name]);
    expect((await get(gateway.url, next.body.id)).status).toBe(200);
    expect((await admin(`replicas/${name}/remove`)).status).toBe(200);
    for (const answer of [
      await get(gateway.url, id),
      await create(gateway.url, { previous_response_id: id }),
    ]) {
      expect(answer.status).toBe(404);
      expect(answer.body.error?.message).toContain('has been removed');
    }
    expect(await count(gateway, 'removed')).toBe(2);
    // The same engine under another row: it still has what it keeps.
    const { url } = scene.replicas[names.indexOf(name as 'a')]!;
    const back = await admin('replicas', { model: 'm', name: `${name}2`, url });
    expect(back.status).toBe(201);
    const found = await reached(
      () => get(gateway.url, id),
      ({ status }) => status === 200,
      'it is found where the replica is now',
    );
    expect([found.body, servedBy(found)]).toEqual([made.body, `${name}2`]);
    // A reload brings the file back, and with it another row once more.
    expect((await admin('reload')).status).toBe(200);
    await reached(
      async () => servedBy(await get(gateway.url, id)),
      (by) => by === name,
      'a reload loses no response',
    );
  });

  test('a reload that changes a replica loses none of its responses', async () => {
    const made = await create(gateway.url);
    const config = scene.file();
    const [m, other] = config.models;
    const models = [
      { ...m!, replicas: m!.replicas.map((replica) => ({ ...replica, max_in_flight: 77 })) },
      other!,
    ];
    gateway.writeConfig(scene.file({ models }));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    for (let i = 0; i < 20; i++) {
      const got = await get(gateway.url, made.body.id);
      expect([got.status, got.body]).toEqual([200, made.body]);
    }
  });
});
