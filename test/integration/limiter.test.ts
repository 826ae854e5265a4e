/**
 * The limiter and the leases of several gateways over a real Redis, without their threads: whatever is taken
 * and given back, together it is never more than one bucket has.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Admission } from '../../src/dispatch/limit-rows.ts';
import { nowUs } from '../../src/lib/clock.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { Member, memberSlots, storeOf } from '../support/limit-member.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';
import { eventually } from '../support/until.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
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
      members.map((member) => [member, Array.from({ length: memberSlots }, (_, slot) => slot)]),
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
