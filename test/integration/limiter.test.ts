/**
 * The limiter and the leases of several gateways over a real Redis, without their threads: whatever is taken
 * and given back, together it is never more than one bucket has.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Admission, type Questions } from '../../src/dispatch/limit-rows.ts';
import { Limits } from '../../src/dispatch/limits.ts';
import { nowUs } from '../../src/lib/clock.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { Limiter, type LimiterOptions } from '../../src/limiter/limiter.ts';
import { RedisStore } from '../../src/limiter/redis-store.ts';
import { AskRingLayout } from '../../src/shm/leases.layout.ts';
import { LeaseTable } from '../../src/shm/leases.ts';
import { LimitTable } from '../../src/shm/limits.ts';
import { askRingCapacity, createMemory } from '../../src/shm/memory.ts';
import { SpscProducer } from '../../src/shm/spsc-ring.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';
import { eventually } from '../support/until.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const size = {
  acceptors: 1,
  forwarders: 1,
  slots: 64,
  arenaBytes: 1 << 20,
  responseRingBytes: 1 << 16,
};

const storeOf = (url: string): RedisStore =>
  new RedisStore({
    ...{ mode: 'single', urls: [url], master: '', username: '', password: '', timeoutMs: 5000 },
  });

function createLimiter(url: string, memory: LimiterOptions['memory']): Limiter {
  const limiter = new Limiter({
    memory,
    store: storeOf(url),
    prefix: 'test:',
    wakeScheduler: () => {},
    onState: () => {},
    onCall: () => {},
  });
  limiter.setNames(new Map([[0, { name: '{t}', owner: 1 }]]));
  return limiter;
}

/** What one gateway has of a bucket: a scheduler's end and a limiter. */
class Member {
  readonly limits: Limits;
  readonly leases: LeaseTable;
  readonly limiter: Limiter;
  /** Another one of the same memory. */
  readonly successor: () => Limiter;
  readonly asked: Questions;

  constructor(url: string, bucket: { inputRate: number; inputBurst: number }) {
    const memory = createMemory({ ...size, limiters: 1 });
    const { sharedLimits } = memory;
    if (sharedLimits === null) throw new Error('limits are shared');
    const table = new LimitTable(memory.limits);
    const word = table.word(0);
    table.words[word + table.at.owner] = 1;
    table.doubles[(word + table.at.inputRate) >> 1] = bucket.inputRate;
    table.doubles[(word + table.at.inputBurst) >> 1] = bucket.inputBurst;
    this.leases = new LeaseTable(sharedLimits.leases);
    const producer = new SpscProducer(AskRingLayout, sharedLimits.asks, askRingCapacity);
    this.limits = new Limits(table, size.slots, {
      rows: this.leases,
      ask: (row) => {
        const cell = producer.begin();
        if (cell < 0) return false;
        producer.words[cell + producer.at.row] = row;
        producer.commit();
        return true;
      },
      budgetUs: 5e6,
      share: 1,
    });
    this.asked = {
      rows: new Int32Array(2 * size.slots).fill(-1),
      numbers: new Int32Array(2 * size.slots),
    };
    this.successor = () => createLimiter(url, { ...memory, sharedLimits });
    this.limiter = this.successor();
  }
  /** What both threads do in a turn of theirs. */
  turn(): void {
    this.limiter.drain();
    if (this.limits.leases?.hasAnswer !== true) return;
    this.limits.leases.seeAnswers();
    this.limits.balance(nowUs());
  }

  /** Resolves once nothing is asked any more. */
  async isQuiet(): Promise<void> {
    const { words, at } = this.leases;
    const word = this.leases.word(0);
    await eventually('every question is answered', async () => {
      this.turn();
      await turn();
      const isAnswered = words[word + at.asked] === words[word + at.answered];
      return isAnswered && this.limits.leases?.hasAnswer === false;
    });
  }

  /** A field of the bucket of prompt tokens. */
  read(field: number): number {
    return this.leases.doubles[((this.leases.word(0) + field) >> 1) + 1]!;
  }
}

describe.skipIf(!hasRedis)('leases over a real Redis (skipped without redis-server)', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await RedisServer.start();
  });
  afterAll(async () => {
    await redis?.close();
  });

  test.each([1, 2, 3])('%s gateways take no more than rate and burst', async (count) => {
    redis.cli('flushall');
    const random = createPrng(seed + count);
    // Neither is a sum of whole units.
    const [perSecond, burst] = [6100 / 3, 1561 / 3];
    const members = Array.from(
      { length: count },
      () => new Member(redis.url, { inputRate: perSecond, inputBurst: burst }),
    );
    for (const { limiter } of members) await limiter.start();
    const started = nowUs();
    let taken = 0;
    let [admitted, refused, asks] = [0, 0, 0];
    const running: { member: Member; slot: number; cost: number }[] = [];
    const free = new Map(
      members.map((member) => [member, Array.from({ length: size.slots }, (_, slot) => slot)]),
    );
    while (nowUs() - started < 2e6) {
      const member = members[random.below(count)]!;
      const slot = free.get(member)!.pop();
      if (slot === undefined || random.below(3) === 0) {
        const done = running.splice(random.below(Math.max(1, running.length)), 1)[0];
        if (done !== undefined) {
          const used = random.below(done.cost + 3);
          done.member.limits.began(done.slot);
          done.member.limits.used(done.slot, used, 0);
          done.member.limits.close(done.slot, true, nowUs());
          taken += used - done.cost;
          free.get(done.member)!.push(done.slot);
        }
      }
      if (slot !== undefined) {
        const cost = 1 + random.below(40);
        const limited = { slot, limitRow: 0, limitModelRow: -1 };
        const admission = member.limits.admit(limited, cost, 0, nowUs());
        if (admission === Admission.admitted) {
          admitted++;
          taken += cost;
          running.push({ member, slot, cost });
        } else {
          free.get(member)!.push(slot);
          if (admission === Admission.refused) refused++;
          else {
            asks++;
            member.limits.ask(limited, member.asked, 2 * slot);
          }
        }
      }
      for (const each of members) each.turn();
      await turn();
      const most = burst + (perSecond * (nowUs() - started)) / 1e6;
      if (taken > most + 3 * 64 * count) throw new Error(`${taken} of ${most} taken, seed ${seed}`);
    }
    const seconds = (nowUs() - started) / 1e6;
    console.info({ admitted, refused, asks, taken, most: burst + perSecond * seconds });
    expect(asks, 'who asks once is not sent to ask again').toBeLessThan(admitted + refused);
    for (const { member, slot } of running.splice(0)) member.limits.close(slot, false, nowUs());
    for (const member of members) {
      await member.isQuiet();
      const held = member.read(member.leases.at.granted) - member.read(member.leases.at.used);
      expect(held, 'what is held at the end').toBeLessThanOrEqual((3 / 32) * burst);
      member.limiter.stop();
    }
    expect(taken).toBeLessThanOrEqual(burst + perSecond * seconds);
    expect(taken).toBeGreaterThan(0.8 * (burst + perSecond * seconds));
  });

  test.each([10, 0.1])(
    'a rate that changes %s-fold leaves as many units taken as were',
    async (factor) => {
      redis.cli('flushall');
      const store = storeOf(redis.url);
      await store.connect();
      const [rate, burst] = [1e-9, 1000]; // it does not fill while the test runs
      const call = { key: '{t}:k', rate, burst, charge: 0, refund: 0, need: 0, want: 0 };
      await store.take([{ ...call, charge: 600 }]);
      const changed = { ...call, rate: rate * factor, burst: 2000 };
      const [first] = await store.take([{ ...changed, refund: 100 }]);
      expect(first!.fullInUs * changed.rate).toBeCloseTo(500, 3);
      const [rest] = await store.take([{ ...changed, want: 5000 }]);
      expect(rest!.given).toBeCloseTo(1500, 3);
      store.close();
    },
  );

  test('a limiter that died with a row taken from the ring: its successor hears of the row again', async () => {
    const member = new Member(redis.url, { inputRate: 1000, inputBurst: 1000 });
    const { words, at } = member.leases;
    const word = member.leases.word(0);
    words[word + at.asked] = 1;
    words[word + at.isInRing] = 1;
    const successor = member.successor();
    await successor.start();
    successor.drain();
    await eventually('it answers', () => words[word + at.answered] === 1);
    expect(words[word + at.isInRing]).toBe(0);
    successor.stop();
  });
});
