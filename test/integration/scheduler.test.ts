import { afterEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { nowUs } from '../../src/lib/clock.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { attemptOf, generationOf } from '../../src/shm/request-slots.ts';
import { DispatchKind, Outcome } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { type Dispatched, type RigOptions, SchedulerRig } from '../support/scheduler-rig.ts';

const seed = Number(process.env.SEED ?? 20_260_103);
console.info(`SEED=${seed}`);

let rig: SchedulerRig;
const create = (options?: RigOptions): SchedulerRig => {
  rig = new SchedulerRig(options);
  return rig;
};
afterEach(() => rig.kill());

describe('dispatch', () => {
  test('a request reaches the forwarder with what it needs, and its end reaches the counters', async () => {
    create();
    const member = rig.replica('a');
    await rig.start();
    const { slot, lease } = rig.submit();
    const dispatched = await rig.dispatched();
    expect(dispatched).toMatchObject({ kind: DispatchKind.start, slot, replica: member.row });
    expect(generationOf(dispatched.lease)).toBe(generationOf(lease));
    expect(attemptOf(dispatched.lease)).toBe(1);
    const { at, words } = rig.slots;
    const row = rig.slots.row(slot);
    expect(words[row + at.replica]).toBe(member.row);
    expect(words[row + at.replicaEpoch]).toBe(member.epoch);
    expect(words[row + at.failedReplicas]).toBe(-1);
    const times = [at.arrivedUs, at.publishedUs, at.queuedUs, at.pickedUs, at.dispatchedUs];
    const read = times.map((field) => rig.slots.readTime(slot, field));
    // Threads measure their clock offsets each for itself, to within some microseconds.
    for (let i = 1; i < read.length; i++) expect(read[i]! - read[i - 1]!).toBeGreaterThan(-200);
    await rig.until(() => rig.inFlight(member) === 1, 'in flight shown');
    rig.finish(dispatched);
    await rig.until(() => rig.inFlight(member) === 0, 'in flight given back');
    const snapshot = rig.metrics();
    expect(snapshot.counter(metrics.schedulerDispatched, 0)).toBe(1);
    expect(snapshot.counter(metrics.replicaRequests, member.row)).toBe(1);
    expect(snapshot.counter(metrics.lateEvents, 0)).toBe(0);
    const latencies = snapshot.buckets(metrics.schedulingLatency, 0);
    expect(latencies.reduce((sum, n) => sum + n, 0)).toBe(1);
  });

  test('attempts are spread over the forwarders by what each is running', async () => {
    create({ forwarders: 2 });
    rig.replica('a');
    await rig.start();
    const started: Dispatched[] = [];
    for (let i = 0; i < 10; i++) {
      rig.submit();
      started.push(await rig.dispatched());
    }
    expect(started.filter(({ forwarder }) => forwarder === 0).length).toBe(5);
    for (const one of started.filter(({ forwarder }) => forwarder === 1)) rig.finish(one);
    const member = [...rig.members][0]!;
    await rig.until(() => rig.inFlight(member) === 5, 'the second forwarder is idle');
    for (let i = 0; i < 5; i++) {
      rig.submit();
      expect((await rig.dispatched()).forwarder).toBe(1);
    }
  });

  test('a broken stream goes to another replica through the forwarder that began it', async () => {
    create({ forwarders: 2 });
    const members = [rig.replica('a'), rig.replica('b')];
    await rig.start();
    rig.submit();
    const first = await rig.dispatched();
    // The other forwarder is idle, this one has all the work.
    rig.submit();
    rig.finish(await rig.dispatched());
    rig.submit();
    rig.finish(await rig.dispatched());
    rig.breakStream(first, errors.TRUNCATED_STREAM.number);
    const second = await rig.dispatched();
    expect(second).toMatchObject({ slot: first.slot, forwarder: first.forwarder });
    expect(second.lease).toBe(first.lease + 1);
    expect(second.replica).not.toBe(first.replica);
    const failed = members.find(({ row }) => row === first.replica)!;
    await rig.until(() => rig.members.state(failed).failed === 1, 'the break is counted');
    rig.fail(second, errors.RESET.number);
    expect(await rig.reply()).toMatchObject({
      slot: first.slot,
      error: errors.ALL_ATTEMPTS_FAILED.number,
    });
    const failures = rig.metrics().counter(metrics.streamContinuations, 1); // model 0, failed
    expect(failures).toBe(1);
  });

  test('a failed attempt goes to the other replica; the failed one is on record', async () => {
    create();
    const members = [rig.replica('a'), rig.replica('b')];
    await rig.start();
    const { slot } = rig.submit();
    const first = await rig.dispatched();
    rig.fail(first, errors.RESET.number);
    const second = await rig.dispatched();
    expect(second.slot).toBe(slot);
    expect(second.lease).toBe(first.lease + 1);
    expect(second.replica).toBe(members.find(({ row }) => row !== first.replica)!.row);
    expect(rig.slots.words[rig.slots.row(slot) + rig.slots.at.failedReplicas]).toBe(first.replica);
    rig.finish(second);
    const failed = members.find(({ row }) => row === first.replica)!;
    await rig.until(() => rig.members.state(failed).failed === 1, 'the failure is counted');
    expect(rig.metrics().counter(metrics.replicaErrors, first.replica)).toBe(1);
    expect(rig.metrics().counter(metrics.replicaRetries, first.replica)).toBe(1);
  });

  test('a replica that refuses connections is asked again after a pause, max_attempts times', async () => {
    create();
    const member = rig.replica('a');
    await rig.start();
    const { slot } = rig.submit();
    let last = await rig.dispatched();
    for (const attempt of [2, 3]) {
      const failedUs = nowUs();
      rig.fail(last, errors.CONNECT_REFUSED.number);
      last = await rig.dispatched();
      // A replica is not judged by a scheduler that was late itself, which it then tells.
      if (nowUs() - failedUs < 200_000) await rig.until(() => rig.lagUs > 100_000, 'its own lag');
      expect(attemptOf(last.lease)).toBe(attempt);
    }
    rig.fail(last, errors.CONNECT_REFUSED.number);
    expect(await rig.reply()).toMatchObject({ slot, error: errors.ALL_ATTEMPTS_FAILED.number });
    expect(rig.inFlight(member)).toBe(0);
    expect(rig.metrics().counter(metrics.replicaErrors, member.row)).toBe(3);
  });

  test('a message about an attempt that is over is counted and changes nothing', async () => {
    create();
    const member = rig.replica('a');
    await rig.start();
    const { slot, lease } = rig.submit();
    const dispatched = await rig.dispatched();
    rig.submit();
    await rig.dispatched();
    rig.finish(dispatched);
    rig.tellReleasedAgain(dispatched);
    rig.leave(slot, lease);
    await rig.until(() => rig.metrics().counter(metrics.lateEvents, 0) === 2, 'late messages');
    expect(rig.inFlight(member)).toBe(1);
  });
});

test('A-15: 200 lone requests find a scheduler that sleeps; their latency is reported', async () => {
  create();
  const member = rig.replica('a');
  await rig.start();
  const { at } = rig.slots;
  const latenciesUs: number[] = [];
  for (let i = 0; i < 200; i++) {
    const { slot } = rig.submit();
    const dispatched = await rig.dispatched();
    const publishedUs = rig.slots.readTime(slot, at.publishedUs);
    latenciesUs.push(rig.slots.readTime(slot, at.dispatchedUs) - publishedUs);
    rig.finish(dispatched);
    rig.free(slot);
    await rig.until(() => rig.inFlight(member) === 0, 'idle again');
  }
  const us = (share: number): string => `${quantile(latenciesUs, share).toFixed(0)} us`;
  console.info(`idle: p50 ${us(0.5)}, p99 ${us(0.99)}`);
  expect(rig.metrics().counter(metrics.schedulerDispatched, 0)).toBe(200);
});

describe('refusals', () => {
  test('A-10: with nobody healthy five requests are refused and counted', async () => {
    create();
    rig.replica('a', 4, false);
    rig.replica('b', 4, false);
    await rig.start();
    for (let i = 0; i < 5; i++) {
      const { slot } = rig.submit();
      const reply = await rig.reply();
      expect(reply).toMatchObject({ slot, error: errors.NO_REPLICA.number });
      expect(rig.slots.state(slot)).toBe(SlotState.settled);
    }
    expect(rig.metrics().counter(metrics.schedulerDropped, 0)).toBe(5);
    expect(rig.metrics().counter(metrics.schedulerDispatched, 0)).toBe(0);
  });

  test('the queue refuses over its bound, and waiters when their time is over', async () => {
    create({ queueMax: 2, queueTimeout: 60 });
    rig.replica('a', 1);
    await rig.start();
    for (let i = 0; i < 4; i++) rig.submit();
    expect((await rig.reply()).error).toBe(errors.QUEUE_FULL.number);
    const startUs = nowUs();
    expect((await rig.reply()).error).toBe(errors.QUEUE_TIMEOUT.number);
    expect((await rig.reply()).error).toBe(errors.QUEUE_TIMEOUT.number);
    expect(nowUs() - startUs).toBeLessThan(5_000_000);
    await rig.dispatched();
    expect(rig.takeDispatch()).toBeUndefined();
  });

  test('attempts that failed everywhere end as one error; a single one speaks for itself', async () => {
    create();
    rig.replica('a');
    await rig.start();
    rig.submit();
    rig.fail(await rig.dispatched(), errors.RESET.number);
    expect((await rig.reply()).error).toBe(errors.RESET.number);
    rig.replica('b');
    rig.submit();
    rig.fail(await rig.dispatched(), errors.RESET.number);
    rig.fail(await rig.dispatched(), errors.CLOSED_EARLY.number);
    expect((await rig.reply()).error).toBe(errors.ALL_ATTEMPTS_FAILED.number);
  });

  test('busy replicas: the client learns the smallest wait', async () => {
    create();
    rig.replica('a');
    rig.replica('b');
    await rig.start();
    rig.submit();
    rig.fail(await rig.dispatched(), errors.REPLICA_OVERLOADED.number, Outcome.busy, 9000);
    rig.fail(await rig.dispatched(), errors.REPLICA_OVERLOADED.number, Outcome.busy, 4000);
    const reply = await rig.reply();
    expect(reply.error).toBe(errors.REPLICA_OVERLOADED.number);
    expect(reply.retryAfterMs).toBeGreaterThan(0);
    expect(reply.retryAfterMs).toBeLessThanOrEqual(4000);
  });

  test('stopping refuses what waits and what still arrives', async () => {
    create();
    rig.replica('a', 1);
    await rig.start();
    rig.submit();
    rig.submit();
    await rig.until(() => rig.queued() === 1, 'one waits');
    rig.cutStreams();
    expect((await rig.reply()).error).toBe(errors.SHUTTING_DOWN.number);
    rig.submit();
    expect((await rig.reply()).error).toBe(errors.SHUTTING_DOWN.number);
  });
});

describe('the client leaves', () => {
  test('while it waits: settled, no replica hears of it, the next one is served', async () => {
    create();
    rig.replica('a', 1);
    await rig.start();
    rig.submit();
    const running = await rig.dispatched();
    const { slot, lease } = rig.submit();
    const next = rig.submit();
    rig.leave(slot, lease);
    expect(await rig.reply()).toMatchObject({ slot, error: errors.CLIENT_GONE.number });
    rig.finish(running);
    expect((await rig.dispatched()).slot).toBe(next.slot);
    const cancels = rig.metrics().buckets(metrics.cancel, 0);
    expect(cancels.reduce((sum, n) => sum + n, 0)).toBe(1);
    expect(rig.metrics().counter(metrics.schedulerDropped, 0)).toBe(0);
  });

  test('while it runs: the forwarder is told to abort the attempt that runs', async () => {
    create();
    rig.replica('a');
    rig.replica('b');
    await rig.start();
    const { slot, lease } = rig.submit();
    rig.fail(await rig.dispatched(), errors.RESET.number);
    const second = await rig.dispatched();
    rig.leave(slot, lease); // the acceptor knows the lease of attempt 0
    expect(await rig.dispatched()).toEqual({ ...second, kind: DispatchKind.abort });
  });
});

describe('waking', () => {
  test('a joining replica serves the waiter at once, without a tick', async () => {
    create();
    rig.replica('a', 1);
    await rig.start();
    rig.submit();
    await rig.dispatched();
    const { slot } = rig.submit();
    await rig.until(() => rig.queued() === 1, 'one waits');
    const member = rig.replica('b');
    expect(await rig.dispatched()).toMatchObject({ slot, replica: member.row });
  });

  test('the heart beats while nothing happens, and the thread ends in order', async () => {
    create();
    await rig.start();
    const beats = (): number => Atomics.load(rig.control, rig.schedulerWord('beats'));
    const before = beats();
    await rig.until(() => beats() >= before + 3, 'beats');
    expect(await rig.stop()).toBe(0);
  });
});

describe('audit', () => {
  test('an attempt whose end is never told is found, counted and given back', async () => {
    create();
    const member = rig.replica('a', 1);
    await rig.start();
    const { slot } = rig.submit();
    const { lease } = await rig.dispatched();
    rig.slots.transition(slot, lease, SlotState.dispatched, SlotState.settled);
    const waiting = rig.submit();
    expect((await rig.dispatched()).slot).toBe(waiting.slot);
    expect(rig.metrics().counter(metrics.inFlightLeaks, 0)).toBe(1);
    expect(rig.inFlight(member)).toBe(1);
  });
});

test('20,000 requests with failures and cancels: none lost, none twice, nothing left', async () => {
  create({ slots: 128, forwarders: 2, queueMax: 1000 });
  const members = [rig.replica('a', 20), rig.replica('b', 20), rig.replica('c', 20)];
  await rig.start();
  const random = createPrng(seed);
  const total = 20_000;
  const open = new Map<number, { lease: number; starts: Set<number> }>();
  const started: Dispatched[] = [];
  let submitted = 0;
  let answered = 0;
  let refused = 0;
  const close = (slot: number): void => {
    expect(open.delete(slot)).toBe(true);
    rig.free(slot);
  };
  const onStart = (one: Dispatched): void => {
    const request = open.get(one.slot)!;
    expect(generationOf(one.lease)).toBe(generationOf(request.lease));
    expect(request.starts.has(one.lease)).toBe(false);
    request.starts.add(one.lease);
    started.push(one);
  };
  const end = (one: Dispatched): void => {
    if (random.below(20) === 0) {
      rig.fail(one, errors.RESET.number);
      return;
    }
    rig.finish(one);
    close(one.slot);
    answered++;
  };
  await rig.until(() => {
    for (let i = 0; i < 16 && submitted < total && rig.freeSlots > 0; i++, submitted++) {
      const { slot, lease } = rig.submit();
      open.set(slot, { lease, starts: new Set() });
      if (random.below(50) === 0) rig.leave(slot, lease);
    }
    for (let one = rig.takeDispatch(); one !== undefined; one = rig.takeDispatch()) {
      if (one.kind === DispatchKind.start) onStart(one);
    }
    for (let reply = rig.takeReply(); reply !== undefined; reply = rig.takeReply()) {
      expect(generationOf(reply.lease)).toBe(generationOf(open.get(reply.slot)!.lease));
      close(reply.slot);
      refused++;
    }
    while (started.length > 40 || (submitted === total && started.length > 0)) {
      end(started.splice(random.below(started.length), 1)[0]!);
    }
    return answered + refused === total;
  }, 'all requests end');
  expect(open.size).toBe(0);
  expect(answered).toBeGreaterThan(total * 0.9);
  await rig.until(() => members.every((member) => rig.inFlight(member) === 0), 'nothing runs');
  const snapshot = rig.metrics();
  const attempts = snapshot.counter(metrics.schedulerDispatched, 0);
  const retries = members.reduce(
    (n, { row }) => n + snapshot.counter(metrics.replicaRetries, row),
    0,
  );
  expect(retries).toBeGreaterThan(100);
  expect(attempts).toBeGreaterThan(total * 0.9);
  expect(snapshot.counter(metrics.inFlightLeaks, 0)).toBe(0);
  const latency = snapshot.buckets(metrics.schedulingLatency, 0);
  console.info(`scheduling latency, bucket counts: ${[...latency].join(' ')}`);
});
