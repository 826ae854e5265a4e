/** A scheduler thread that dies is replaced by one that continues from the slot table. */
import { afterEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { adapterSalt } from '../../src/lib/adapter-salt.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { attemptOf } from '../../src/shm/request-slots.ts';
import { DispatchKind } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { type Dispatched, SchedulerRig } from '../support/scheduler-rig.ts';

const rules = { aliases: [], policy: 'least_in_flight', sessionAffinity: true };
/** b is asked for what a cannot do. */
const chain = [
  { name: 'a', ...rules, fallbacks: [{ model: 1, adapter: 0 }] },
  { name: 'b', ...rules },
];

let rig: SchedulerRig;
afterEach(() => rig.kill());

test('a successor takes over a half-full table: counts, order, retries, cancels, ends', async () => {
  rig = new SchedulerRig({ forwarders: 2 });
  const members = [rig.replica('a', 3), rig.replica('b', 3)];
  await rig.start();
  const requests = Array.from({ length: 10 }, () => rig.submit());
  const started: Dispatched[] = [];
  for (let i = 0; i < 6; i++) started.push(await rig.dispatched());
  started.sort((a, b) => a.slot - b.slot); // replicas a, b, a, b, …
  await rig.until(() => rig.queued() === 4, 'four wait');
  await rig.kill();

  // While nobody schedules: streams begin and end, an attempt fails, clients come and go.
  const [streaming, settled, failed, running1, running2, abandoned] = started as [
    Dispatched,
    Dispatched,
    Dispatched,
    Dispatched,
    Dispatched,
    Dispatched,
  ];
  const { dispatched, streaming: streams } = SlotState;
  rig.slots.transition(streaming.slot, streaming.lease, dispatched, streams);
  rig.finish(settled);
  rig.fail(failed, errors.RESET.number);
  const late = rig.submit();
  const unannounced = rig.claim(); // its acceptor stands between stamp and message
  const [, , , , , , waiting1, leaver, waiting2] = requests;
  rig.leave(leaver!.slot, leaver!.lease);
  rig.leave(abandoned.slot, requests.find(({ slot }) => slot === abandoned.slot)!.lease);
  await rig.start();

  expect(await rig.reply()).toMatchObject({
    slot: leaver!.slot,
    error: errors.CLIENT_GONE.number,
  });
  // What may not have been published is published again, under the same lease.
  const again: Dispatched[] = [];
  while (again.length < 6) again.push(await rig.dispatched());
  const starts = again.filter(({ kind }) => kind === DispatchKind.start);
  const known = [running1, running2, abandoned];
  for (const one of known) expect(starts).toContainEqual(one);
  expect(again.filter(({ kind }) => kind === DispatchKind.abort)).toEqual([
    { ...abandoned, kind: DispatchKind.abort },
  ]);
  const fresh = starts.filter(
    ({ slot, lease }) => !known.some((k) => k.slot === slot && k.lease === lease),
  );
  // One place is free on each replica: the failed request takes the one where it did not fail.
  expect(fresh.map(({ slot }) => slot)).toEqual(
    expect.arrayContaining([failed.slot, waiting1!.slot]),
  );
  const retry = fresh.find(({ slot }) => slot === failed.slot)!;
  expect(attemptOf(retry.lease)).toBe(2);
  expect(retry.replica).not.toBe(failed.replica);

  // The rest is served in the order of publication, each once.
  const order: number[] = [];
  const ended = [running1, running2, retry, fresh.find(({ slot }) => slot === waiting1!.slot)!];
  for (const one of ended) rig.finish(one);
  for (let i = 0; i < 4; i++) {
    const next = await rig.dispatched();
    order.push(next.slot);
    rig.finish(next);
  }
  const pickedUs = (slot: number): number => rig.slots.readTime(slot, rig.slots.at.pickedUs);
  order.sort((a, b) => pickedUs(a) - pickedUs(b)); // two forwarders' rings have no common order
  expect(order).toEqual([waiting2!.slot, requests[9]!.slot, late.slot, unannounced.slot]);
  rig.slots.transition(streaming.slot, streaming.lease, streams, SlotState.settled);
  rig.tellReleasedAgain(streaming);
  rig.finish(abandoned);
  await rig.until(() => members.every((member) => rig.inFlight(member) === 0), 'nothing runs');
  expect(rig.metrics().counter(metrics.inFlightLeaks, 0)).toBe(0);
  expect(rig.takeReply()).toBeUndefined();
});

test('a stream that broke while nobody scheduled is continued by its forwarder', async () => {
  rig = new SchedulerRig({ forwarders: 2 });
  rig.replica('a');
  rig.replica('b');
  await rig.start();
  rig.submit();
  rig.submit();
  const [one, other] = [await rig.dispatched(), await rig.dispatched()];
  const broken = one.forwarder === 1 ? one : other;
  rig.finish(broken === one ? other : one);
  await rig.kill();
  rig.breakStream(broken, errors.TRUNCATED_STREAM.number, false);
  await rig.start();
  const next = await rig.dispatched();
  expect(next).toMatchObject({ slot: broken.slot, lease: broken.lease + 1, forwarder: 1 });
  expect(next.replica).not.toBe(broken.replica);
  rig.finish(next);
});

test('a successor that finds an empty table starts from nothing', async () => {
  rig = new SchedulerRig();
  rig.replica('a');
  await rig.start();
  rig.submit();
  rig.finish(await rig.dispatched());
  await rig.kill();
  await rig.start();
  const { slot } = rig.submit();
  expect(await rig.dispatched()).toMatchObject({ slot });
});

describe('a hedge that runs when the scheduler dies', () => {
  /** Start and hedge of one request, as the forwarder reads them. */
  async function hedged(): Promise<{ first: Dispatched; hedge: Dispatched; loads(): number[] }> {
    rig = new SchedulerRig();
    const members = [rig.replica('a'), rig.replica('b')];
    await rig.start();
    rig.submit(0, 0, 0);
    const [first, hedge] = [await rig.dispatched(), await rig.dispatched()];
    expect([first.kind, hedge.kind]).toEqual([DispatchKind.start, DispatchKind.hedge]);
    expect([hedge.slot, hedge.lease]).toEqual([first.slot, first.lease]);
    expect(hedge.replica).not.toBe(first.replica);
    const loads = (): number[] => {
      const ofRow = new Map(members.map((member) => [member.row, rig.inFlight(member)]));
      return [first, hedge].map(({ replica }) => ofRow.get(replica) as number);
    };
    await rig.until(() => `${loads()}` === '1,1', 'both count it');
    return { first, hedge, loads };
  }

  test('is counted and published again, whether the forwarder has read of it or not', async () => {
    for (const isBegun of [false, true]) {
      const { first, hedge, loads } = await hedged();
      if (isBegun) rig.beginHedge(first);
      await rig.kill();
      await rig.start();
      expect(await rig.dispatched()).toEqual(first);
      expect(await rig.dispatched()).toEqual(hedge);
      await rig.until(() => `${loads()}` === '1,1', 'both count it');
      rig.drop(hedge, errors.RESET.number);
      await rig.until(() => `${loads()}` === '1,0', 'the first is left');
      rig.finish(first);
      await rig.until(() => `${loads()}` === '0,0', 'nothing runs');
      expect(rig.metrics().counter(metrics.inFlightLeaks, 0)).toBe(0);
      await rig.kill();
    }
  });

  test('and whose first exchange fails meanwhile is all that is counted', async () => {
    const { first, hedge, loads } = await hedged();
    await rig.kill();
    rig.beginHedge(first);
    rig.drop(first, errors.RESET.number);
    await rig.start();
    expect(await rig.dispatched()).toEqual(first);
    await rig.until(() => `${loads()}` === '0,1', 'the hedge is left');
    rig.finish(hedge);
    await rig.until(() => `${loads()}` === '0,0', 'nothing runs');
    expect(rig.takeDispatch()).toBeUndefined();
    expect(rig.metrics().counter(metrics.inFlightLeaks, 0)).toBe(0);
  });

  test('and that ends meanwhile is not counted', async () => {
    const { first, hedge, loads } = await hedged();
    await rig.kill();
    rig.beginHedge(first);
    rig.drop(hedge, errors.RESET.number);
    await rig.start();
    expect(await rig.dispatched()).toEqual(first);
    await rig.until(() => `${loads()}` === '1,0', 'the first is left');
    rig.finish(first);
    await rig.until(() => `${loads()}` === '0,0', 'nothing runs');
    expect(rig.takeDispatch()).toBeUndefined();
  });
});

test('a refusal that the predecessor could not tell is told by the successor', async () => {
  rig = new SchedulerRig();
  rig.replica('a');
  await rig.start();
  await rig.kill();
  const { slot, lease } = rig.claim();
  const { at, words } = rig.slots;
  const row = rig.slots.row(slot);
  // As the scheduler does it; then it dies before the record is in the ring.
  words[row + at.refusedError] = errors.QUEUE_FULL.number;
  words[row + at.refusedRetryMs] = 700;
  words[row + at.refused] = lease;
  rig.slots.transition(slot, lease, SlotState.queued, SlotState.settled);
  await rig.start();
  const told = { slot, lease, error: errors.QUEUE_FULL.number, retryAfterMs: 700 };
  expect(await rig.reply()).toEqual(told);
});

test('whose client left while its attempt failed is not tried again', async () => {
  rig = new SchedulerRig();
  rig.replica('a');
  rig.replica('b');
  await rig.start();
  const { slot, lease } = rig.submit();
  const attempt = await rig.dispatched();
  await rig.kill();
  rig.fail(attempt, errors.RESET.number);
  rig.leave(slot, lease);
  await rig.start();
  const told = { slot, lease: attempt.lease, error: errors.CLIENT_GONE.number };
  expect(await rig.reply()).toMatchObject(told);
  // One that comes later is the next thing that a forwarder hears of.
  const next = rig.submit();
  expect(await rig.dispatched()).toMatchObject({ slot: next.slot, kind: DispatchKind.start });
});

test('attempts of the model that it came for do not count at its fallback', async () => {
  rig = new SchedulerRig({ models: chain });
  rig.replica('a1');
  for (const name of ['b1', 'b2', 'b3']) rig.replica(name, 8, true, undefined, 1);
  await rig.start();
  const { slot } = rig.submit();
  for (let number = 1; number <= 4; number++) {
    const attempt = await rig.dispatched();
    expect(attemptOf(attempt.lease)).toBe(number);
    await rig.kill();
    await rig.start();
    expect(await rig.dispatched()).toEqual(attempt); // published once more
    rig.fail(attempt, errors.REPLICA_5XX.number);
  }
  expect(await rig.reply()).toMatchObject({ slot, error: errors.ALL_ATTEMPTS_FAILED.number });
});

test('a prompt has the hashes of the adapter that it went on to', async () => {
  rig = new SchedulerRig({ models: chain });
  rig.replica('b1', 8, true, undefined, 1);
  const { slot } = rig.claim();
  const { words, at } = rig.slots;
  const row = rig.slots.row(slot);
  const hashes = [1, 2, 0, 3];
  words[row + at.adapter] = 5;
  words[row + at.prefixCount] = 2;
  words.set(
    hashes.map((hash) => hash ^ adapterSalt(5)),
    row + at.prefixHash,
  );
  words.set([0, 0], row + at.headHash);
  await rig.start();
  await rig.dispatched();
  expect([...words.subarray(row + at.prefixHash, row + at.prefixHash + 4)]).toEqual(hashes);
  expect([...words.subarray(row + at.headHash, row + at.headHash + 2)]).toEqual([0, 0]);
});

test('requests on their way to another model arrive there under the successor', async () => {
  rig = new SchedulerRig({ models: chain });
  rig.replica('a1', 8);
  const second = rig.replica('b1', 1, true, undefined, 1);
  await rig.start();
  const { words, at } = rig.slots;
  const model = (slot: number): number => words[rig.slots.row(slot) + at.model] as number;
  for (let i = 0; i < 3; i++) rig.submit();
  const first: Dispatched[] = [];
  while (first.length < 3) first.push(await rig.dispatched());
  for (const attempt of first) rig.fail(attempt, errors.REPLICA_5XX.number);
  const running = await rig.dispatched(); // the other two wait for the one place that b has
  expect(running.replica).toBe(second.row);
  await rig.until(() => first.every(({ slot }) => model(slot) === 1), 'all went on');
  await rig.kill();
  await rig.start();
  const again = await rig.dispatched();
  expect(again).toEqual(running); // published once more
  const order: Dispatched[] = [running];
  for (let at = 0; at < 2; at++) {
    rig.finish(order[at] as Dispatched);
    const next = await rig.dispatched();
    expect(next.replica).toBe(second.row);
    expect(attemptOf(next.lease)).toBe(2);
    order.push(next);
  }
  expect(new Set(order.map(({ slot }) => slot)).size).toBe(3);
  // b has no fallback, and nobody goes back.
  const last = order[2] as Dispatched;
  rig.fail(last, errors.REPLICA_5XX.number);
  expect(await rig.reply()).toMatchObject({
    slot: last.slot,
    error: errors.ALL_ATTEMPTS_FAILED.number,
  });
});

test('a request that went on to the larger model has its fallbacks under the successor', async () => {
  const rules = { aliases: [], policy: 'least_in_flight', sessionAffinity: true };
  rig = new SchedulerRig({
    models: [
      { name: 'a', ...rules, cascade: { model: 1, adapter: 0, promptBytes: 0 } },
      { name: 'b', ...rules, fallbacks: [{ model: 0, adapter: 0 }] },
    ],
  });
  const small = rig.replica('a1', 1);
  const large = rig.replica('b1', 1, true, undefined, 1);
  await rig.start();
  rig.submit();
  const first = await rig.dispatched();
  expect(first.replica).toBe(small.row);
  await rig.kill();
  rig.fail(first, errors.REPLY_REFUSED.number); // while nobody schedules
  await rig.start();
  const second = await rig.dispatched();
  expect(second).toMatchObject({ slot: first.slot, replica: large.row });
  await rig.kill();
  rig.submit();
  await rig.start();
  expect(await rig.dispatched()).toEqual(second); // published once more
  const other = await rig.dispatched(); // which has the place of the small model
  expect(other.replica).toBe(small.row);
  rig.fail(second, errors.REPLICA_5XX.number);
  const { words, at } = rig.slots;
  await rig.until(() => words[rig.slots.row(first.slot) + at.model] === 0, 'it went back');
  await rig.kill();
  await rig.start();
  expect(await rig.dispatched()).toEqual(other);
  rig.finish(other);
  const back = await rig.dispatched();
  expect(back).toMatchObject({ slot: first.slot, replica: small.row });
  expect(attemptOf(back.lease)).toBe(3);
  rig.fail(back, errors.REPLICA_5XX.number);
  const error = errors.ALL_ATTEMPTS_FAILED.number;
  expect(await rig.reply()).toMatchObject({ slot: first.slot, error });
});
