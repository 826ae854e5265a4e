/**
 * The failover scorecard, F01 to F16 (RELIABILITY 8.4): streaming and not, the first replica faulty and
 * the second good. What the client sees, within which clock, and what the books say afterwards. Streams
 * that break go on at the second replica, and in models without continuation end with an error event.
 * Every request has replica rows of its own, whose breakers open at a single failure. Prints the table.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectComeback } from '../support/comeback.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
} from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { total } from '../support/scenario.ts';
import { outcomeOf, Scorecard } from '../support/scorecard.ts';
import {
  casesOf,
  connectMs,
  firstTokenMs,
  interTokenMs,
  type ScoreCase,
  unresolved,
} from '../support/scorecard-cases.ts';
import { answerTokens, type Call, call, reached } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const score = new Scorecard();
afterAll(() => score.publish('# Failover scorecard', 'artifacts/scorecard.md'));

const modelOf = ({ id, kind }: ScoreCase, index: number): string =>
  `${id.toLowerCase()}-${kind}-${index}`;

const scorecard = (engine: TestEngine): void => {
  const cases = casesOf();
  let first: ReplicaProcess;
  let second: ReplicaProcess;
  let gateway: GatewayProcess;
  const closing: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    first = await replicaProcess({ model: 'm', name: 'first', profile: 'tokens:ttft=2ms,itl=2ms' });
    closing.push(() => first.close());
    second = await replicaProcess({ model: 'm', name: 'second', profile: 'instant' });
    closing.push(() => second.close());
    const modelFor = (name: string, url: string, mode: 'off' | 'text') => ({
      ...{ name, policy: 'weighted_least_connections' as const, continuation: mode },
      // A far heavier first replica is picked first whenever it may be. Few connections each: there
      // are more than a hundred of them.
      replicas: [
        { url, name: `${name}-first`, weight: 1000, api_key: 'key', max_in_flight: 8 },
        { url: second.url, name: `${name}-second`, weight: 0.001, max_in_flight: 8 },
      ],
    });
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        log: { level: 'warn' },
        timeouts: {
          ...{ connect: `${connectMs}ms`, first_token: `${firstTokenMs}ms` },
          ...{ answer: `${firstTokenMs}ms`, inter_token: `${interTokenMs}ms` },
        },
        // Those that are out are asked five times as often, so what could not be said at a busy start is
        // said soon; the others are not asked again while this runs.
        health: { interval: '2m', timeout: '5s' },
        breaker: { mode: 'quarantine', open: '10m' },
        models: [
          ...cases.map((each, i) =>
            modelFor(modelOf(each, i), each.url ?? first.url, each.isContinued ? 'text' : 'off'),
          ),
          modelFor('control', first.url, 'off'),
        ],
      },
    });
    closing.push(() => gateway.finish());
    await reached(
      () => gateway.cluster(),
      ({ replicas }) =>
        replicas.every(({ url, healthy }) => healthy === !url.startsWith(unresolved)),
      'what each of them is',
    );
    for (const stream of [false, true]) {
      await call(gateway.port, { nonce: 'warm', model: 'control', stream }).ended;
    }
  });
  afterAll(async () => {
    for (const close of closing.toReversed()) await close();
  });

  const of = async (name: string) =>
    (await gateway.cluster()).replicas.find((replica) => replica.name === name)!;
  const attempts = async (nonce: string): Promise<number[]> => {
    const lists = await Promise.all([first.ledger(nonce), second.ledger(nonce)]);
    return lists.map(({ length }) => length);
  };
  const send = (nonce: string, model: string, each: ScoreCase): Promise<Call> => {
    const { headers = {}, extra = {}, kind } = each;
    return call(gateway.port, { nonce, model, headers, extra, stream: kind === 'stream' }).ended;
  };

  function expectAnswer(each: ScoreCase, c: Call): void {
    expect(c.end, c.body.toString()).toBe(each.end);
    expect(c.status).toBe(each.status ?? 200);
    if (each.end === 'http-error') expect(c.errorCode).toBe(each.code);
    if (each.kind === 'whole') {
      if (each.end === 'done') expect(c.text.trim().split(' ')).toHaveLength(answerTokens);
      return;
    }
    const { exact, tokens, finishReason, malformed, errors, sawDone, ids } = c.ledger;
    if (each.end === 'done') {
      expect([exact, tokens, finishReason]).toEqual([true, answerTokens, 'length']);
      expect([malformed, errors, sawDone, ids.size]).toEqual([[], [], true, 1]);
    }
    if (each.end !== 'stream-error') return;
    expect([exact, errors.length, sawDone, ids.size]).toEqual([true, 1, false, 1]);
    expect(errors[0]).toMatchObject({ code: each.code });
    if (each.tokens !== undefined) expect(tokens).toBe(each.tokens);
  }

  const indexed = cases.map((each, index) => ({ ...each, index }));
  test.each(indexed)(
    '$id: $fault, $kind, continued $isContinued',
    { timeout: 90_000 },
    async ({ index, ...each }) => {
      const { id, fault, kind, isContinued, atLeastMs, atMostMs } = each;
      const model = modelOf(each, index);
      const nonce = `${engine}-${model}`;
      const more =
        kind === 'stream' && each.isBreak ? `, ${isContinued ? 'continued' : 'not'}` : '';
      const title = `${fault} (${kind}${more}, ${engine})`;
      await score.score(id, title, atMostMs, async (seen) => {
        await first.setFaults([{ fault: each.first, id: nonce }]);
        if (each.second !== undefined) await second.setFaults([{ fault: each.second, id: nonce }]);
        if (each.isClosed) await first.listen(false);
        const c = await send(nonce, model, each);
        if (each.isClosed) await first.listen(true);
        const ms = c.endedAt - c.startedAt;
        seen(outcomeOf(c), ms);
        expectAnswer(each, c);
        expect(ms).toBeLessThan(atMostMs);
        expect(ms).toBeGreaterThanOrEqual(atLeastMs);
        expect(await attempts(nonce)).toEqual(each.attempts);
        await expectQuiet(gateway);
        const { errors, breaker, in_flight } = await of(`${model}-first`);
        expect([errors, in_flight]).toEqual([each.isBlamed ? 1 : 0, 0]);
        if (!each.isBlamed) expect(breaker, 'untouched').toBe('closed');
        const retries = total(await gateway.metrics(), 'sluice_replica_retries_total', {
          replica: `${model}-first`,
        });
        expect(retries).toBe(each.retries ?? each.attempts[1]);
        await each.check?.({
          ...{ gateway, first, second, c, nonce, model },
          again: (name) => send(name, model, { ...each, first: '', second: '' }),
        });
      });
    },
  );

  test('the breakers that were untouched open at a single failure', async () => {
    await first.setFaults([{ fault: 'status=500' }]);
    // More than once where the machine is so busy that nobody is judged.
    await eventually('the first is out', async () => {
      const c = await call(gateway.port, { nonce: 'control', model: 'control' }).ended;
      expect(c.end).toBe('done');
      return (await of('control-first')).breaker !== 'closed';
    });
    await first.setFaults([]);
  });
};

// Each engine has processes of its own and mostly waits for clocks.
describe.concurrent.each(testEngines)('scorecard, engine %s', (engine) => {
  describe('one fault after the other', { concurrent: false }, () => scorecard(engine));
  test('F15: dead, then back', { timeout: 60_000 }, () =>
    score.score('F15', `dead, then back (both, ${engine})`, 10_000, (seen) =>
      expectComeback(engine, seen),
    ),
  );
});
