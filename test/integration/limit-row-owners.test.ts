/**
 * A row of shared limits that another tenant gets while requests of the last one run, over a real Redis: the
 * next tenant has one full bucket, whatever those before it owed, gave back or were still to be answered.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createPrng } from '../../src/lib/prng.ts';
import type { RedisStore } from '../../src/limiter/redis-store.ts';
import { Member, memberNames, memberSlots, storeOf } from '../support/limit-member.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
/** Nothing runs in while a test does. */
const [perSecond, burst] = [1e-4, 1000];
const rate = perSecond / 1e6;

describe.skipIf(!hasRedis)('over a real Redis (skipped without redis-server)', () => {
  let redis: RedisServer;
  let store: RedisStore;
  let member: Member;
  beforeAll(async () => {
    redis = await RedisServer.start();
    store = storeOf(redis.url);
    await store.connect();
  });
  afterAll(async () => {
    store?.close();
    await redis?.close();
  });
  beforeEach(async () => {
    redis.cli('flushall');
    member = new Member(redis.url, { inputRate: perSecond, inputBurst: burst });
    await member.limiter.start();
    return () => member.limiter.stop();
  });

  /** Of the bucket of the tenant in the store; what is leased is taken there. */
  async function takenOf(tenant: string): Promise<number> {
    const none = { charge: 0, refund: 0, need: 0, want: 0 };
    const key = `test:{${tenant}}:input_tokens`;
    const [answer] = await store.take([{ key, rate, burst, ...none }]);
    return Math.round(answer!.fullInUs * rate);
  }

  /** The row is of tenant b from here on, as every thread knows. */
  function changeHands(): void {
    member.changeOwner(2);
    member.limiter.setNames(memberNames('b', 2));
  }

  /** Takes one by one what there is. */
  async function takeRest(from: number): Promise<number> {
    let taken = 0;
    while (await member.take(from, 1)) {
      taken++;
      member.end(from, 1);
    }
    return taken;
  }

  test('what a request owes that ends behind the change is not charged to the next tenant', async () => {
    expect(await member.take(0, 100)).toBe(true);
    changeHands();
    member.end(0, 700);
    await member.isQuiet();
    expect(await takenOf('b')).toBe(0);
    expect(await takeRest(1)).toBe(burst);
  });

  test('nor what was owed before it and not asked for yet', async () => {
    expect(await member.take(0, 100)).toBe(true);
    member.end(0, 700);
    changeHands();
    await member.isQuiet();
    expect(await takenOf('b')).toBe(0);
    expect(await takeRest(1)).toBe(burst);
  });

  test('what a request gives back is not given to the next tenant', async () => {
    expect(await member.take(0, 900)).toBe(true);
    changeHands();
    expect(await takeRest(1)).toBe(burst);
    member.end(0, 0);
    await member.isQuiet();
    expect(await takenOf('b')).toBe(burst);
    expect(await takeRest(1)).toBe(0);
  });

  test('nor is the answer to a question that was under way', async () => {
    const asks = member.take(0, 800);
    member.limiter.drain();
    changeHands();
    expect(await asks, 'by now it is of the next one').toBe(true);
    expect(await takeRest(1)).toBe(burst - 800);
    expect(await takenOf('b')).toBe(burst);
  });

  test('that the last one was refused says nothing of the next', async () => {
    expect(await takeRest(0)).toBe(burst);
    expect(await member.take(1, 1)).toBe(false);
    changeHands();
    expect(await member.take(2, 1)).toBe(true);
  });

  test('tenants come and go over it in any order of events, and each has one bucket', async () => {
    const random = createPrng(seed);
    /** Slots that run, of whatever tenant, and what they took. */
    const running = new Map<number, number>();
    const free = Array.from({ length: memberSlots - 1 }, (_, slot) => slot + 1);
    const end = (slot: number): number => {
      const took = running.get(slot)!;
      const used = random.below(2 * took);
      running.delete(slot);
      free.push(slot);
      member.end(slot, used);
      return used - took;
    };
    let late = 0;
    for (let owner = 1; owner < 12; owner++) {
      const earlier = new Set(running.keys());
      member.changeOwner(owner);
      const mayEnd = (): void => {
        const [slot] = earlier;
        if (slot === undefined || random.below(2) === 0) return;
        earlier.delete(slot);
        end(slot);
        late++;
      };
      // Before the limiter knows the name, before anybody of the tenant came, and behind that.
      mayEnd();
      if (random.below(2) === 0) member.limiter.drain();
      member.limiter.setNames(memberNames(`t${owner}`, owner));
      mayEnd();
      let taken = 0;
      const own: number[] = [];
      for (let step = 0; step < 30; step++) {
        const draw = random.below(4);
        if (draw === 0) mayEnd();
        else if (draw === 1 && own.length > 0) taken += end(own.pop()!);
        else if (draw === 2) member.turn();
        else {
          const slot = free.shift();
          if (slot === undefined) continue;
          const cost = 1 + random.below(40);
          if (await member.take(slot, cost)) {
            taken += cost;
            running.set(slot, cost);
            own.push(slot);
          } else free.push(slot);
        }
      }
      await member.isQuiet();
      const rest = await takeRest(0);
      expect(taken + rest, `tenant ${owner}, seed ${seed}`).toBe(burst);
    }
    expect(late).toBeGreaterThan(5);
  });
});
