/**
 * Ledgers of several gateways over one real Redis, without their threads: whatever happens to Redis or to a
 * gateway, what all have spent is the sum of what each has, once.
 */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { RedisBudgets } from '../../src/ledger/budget-store.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import { stateFileOf } from '../../src/ledger/state-file.ts';
import { inBillionths } from '../../src/lib/price.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { LedgerLayout } from '../../src/shm/ledger.layout.ts';
import { LedgerTable, ledgerCounts } from '../../src/shm/ledger.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';
import { eventually } from '../support/until.ts';

const acme = { tenant: 'acme', row: 3, isClosed: true, day: 100, month: 1000 };
const other = { ...acme, tenant: 'other', row: 4 };
const waitMs = 15_000;
const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);

let folder: string;
let redis: RedisServer;
let count: number;
const members: Member[] = [];

/** A gateway as its ledger knows it. */
class Member {
  readonly path: string;
  readonly table = new LedgerTable(LedgerLayout.create(ledgerCounts));
  readonly said: string[] = [];
  readonly ledger: Ledger;

  constructor(name: string, budgets: readonly (typeof acme)[] = [acme, other]) {
    const own = join(folder, name);
    mkdirSync(own, { recursive: true });
    this.path = join(own, 'u.ndjson');
    const say = (text: string): void => {
      this.said.push(text);
    };
    const redisOptions = { mode: 'single', urls: [redis.url], master: '' } as const;
    const access = { username: '', password: '', timeoutMs: 1000 };
    this.ledger = new Ledger({
      ...{ path: this.path, acceptors: 1, table: this.table, budgets, sinks: [] },
      log: { warn: say, error: say },
      shared: {
        store: new RedisBudgets({ ...redisOptions, ...access }, 'test:'),
        onState: (isUp) => say(isUp ? 'up' : 'down'),
        onCall: () => {},
        onRefused: (tenant) => say(`refused ${tenant}`),
      },
      open: () => Promise.reject(new Error('there is none')),
      ...{ onStored: () => {}, onFailed: () => {}, onTrouble: () => {}, onLost: () => {} },
    });
    members.push(this);
  }

  spend(amount: number, tenant = 'acme', time = new Date().toISOString()): void {
    const id = `00000000-0000-7000-8000-${String(count++).padStart(12, '0')}`;
    appendFileSync(this.path, `${JSON.stringify({ id, time, tenant, cost: amount })}\n`);
  }

  spent(row = acme.row): number {
    return this.table.readTenant(row, 'monthSpent') / inBillionths(1);
  }

  isRefused(row = acme.row): boolean {
    return this.table.readTenant(row, 'refusedUntilMs') > Date.now();
  }

  isUnknown(row = acme.row): boolean {
    return this.table.readTenant(row, 'isUnknown') === 1;
  }
}

async function started(name: string, budgets?: readonly (typeof acme)[]): Promise<Member> {
  const member = new Member(name, budgets);
  await member.ledger.start();
  return member;
}

const calls = (): number => {
  const line = redis.cli('info', 'commandstats').match(/cmdstat_evalsha:calls=(\d+)/);
  return Number(line?.[1] ?? 0);
};

/** And it stays so for two rounds of all: nothing is told twice. */
async function allKnow(amount: number, ...who: readonly Member[]): Promise<void> {
  for (const member of who) {
    await eventually(`${amount} are known`, () => member.spent() === amount, waitMs);
  }
  const since = calls();
  await eventually('two rounds', () => calls() - since >= 4 * who.length, waitMs);
  expect(who.map((member) => member.spent())).toEqual(who.map(() => amount));
}

const keys = (): string[] => redis.cli('keys', 'test:*').split('\n').sort();

describe.skipIf(!hasRedis)('spent together (skipped without redis-server)', () => {
  beforeAll(async () => {
    redis = await RedisServer.start();
  });
  afterAll(() => redis?.close());
  beforeEach(() => {
    redis.cli('flushall');
    folder = mkdtempSync(join(tmpdir(), 'sluice-spending-'));
    count = 0;
  });
  afterEach(async () => {
    for (const { ledger } of members.splice(0)) await ledger.close(1000);
    vi.useRealTimers();
    rmSync(folder, { recursive: true, force: true });
  });

  test('each knows what all have spent, and a budget is spent for all of them', async () => {
    const [a, b, c] = [await started('a'), await started('b'), await started('c')];
    a.spend(30);
    b.spend(20);
    b.spend(5, 'other');
    await allKnow(50, a, b, c);
    await eventually('that of another is apart', () => a.spent(other.row) === 5, waitMs);
    expect([a, b, c].some((each) => each.isRefused())).toBe(false);
    a.spend(50);
    for (const each of [a, b, c]) await eventually('it is spent', () => each.isRefused(), waitMs);
    expect(c.isRefused(other.row)).toBe(false);
    const now = new Date().toISOString();
    expect(keys()).toEqual(
      ['acme', 'other'].flatMap((tenant) =>
        [now.slice(0, 7), now.slice(0, 10)].map((period) => `test:{${tenant}}:budget:${period}`),
      ),
    );
    const endMs = Date.parse(`${now.slice(0, 10)}T00:00:00Z`) + 86_400_000;
    const ttlMs = Number(redis.cli('pttl', `test:{acme}:budget:${now.slice(0, 10)}`));
    expect(Math.abs(Date.now() + ttlMs - endMs - 3_600_000)).toBeLessThan(60_000);
  });

  test('what is nearly spent is asked about at every tick', async () => {
    const [a, b] = [await started('a'), await started('b')];
    a.spend(85);
    await allKnow(85, a, b);
    a.spend(10);
    await eventually('it is near', () => a.spent() === 95 && b.spent() === 95, waitMs);
    const from = { calls: calls(), ms: performance.now() };
    await eventually('some ticks have passed', () => calls() - from.calls >= 16, waitMs);
    // Two tenants of two gateways are four calls a round: alone these would take four seconds.
    expect(performance.now() - from.ms).toBeLessThan(3900);
  });

  test('two processes of one gateway, both alive: what both read counts once', async () => {
    const older = await started('a');
    const other = await started('b');
    older.spend(10);
    await allKnow(10, older, other);
    const newer = await started('a');
    expect(newer.spent()).toBe(10);
    for (let i = 0; i < 20; i++) newer.spend(1);
    await allKnow(30, older, newer, other);
    await older.ledger.close(1000);
    newer.spend(1);
    await allKnow(31, newer, other);
    expect(redis.cli('hlen', keys()[0]!)).toBe('2'); // one gateway has spent, and the total
  });

  test('a process that ends without a word, and one after it', async () => {
    const [a, b] = [await started('a'), await started('b')];
    a.spend(10);
    b.spend(1);
    await allKnow(11, a, b);
    // What the file has and nobody has read is found by the next.
    await b.ledger.close(1000);
    b.spend(7);
    const again = await started('b');
    await allKnow(18, a, again);
  });

  test('a gateway that lost its state: what it told under its old name stays and counts once', async () => {
    const [a, b] = [await started('a'), await started('b')];
    b.spend(10);
    await allKnow(10, a, b);
    await b.ledger.close(1000);
    rmSync(stateFileOf(b.path));
    const again = await started('b');
    expect(again.spent()).toBe(10);
    again.spend(5);
    await allKnow(15, a, again);
    await again.ledger.close(1000);
    const third = await started('b'); // what it told before its new name is still not its to tell
    third.spend(1);
    await allKnow(16, a, third);
  });

  test('Redis comes back empty: all is there again, but nobody is let in meanwhile', async () => {
    const [a, b] = [await started('a'), await started('b')];
    a.spend(60);
    b.spend(45);
    for (const each of [a, b]) await eventually('it is spent', () => each.isRefused(), waitMs);
    await redis.kill();
    await eventually('it is known to be away', () => a.isUnknown() && b.isUnknown(), waitMs);
    await redis.startAgain();
    for (const each of [a, b]) {
      await eventually('it is back', () => {
        expect(each.isRefused()).toBe(true);
        return !each.isUnknown();
      });
    }
    await allKnow(105, a, b);
    const c = await started('c');
    await allKnow(105, c);
  });

  test('Redis hangs: what was heard stays, what is spent here counts, and both are known after', async () => {
    const [a, b] = [await started('a'), await started('b')];
    a.spend(10);
    b.spend(20);
    await allKnow(30, a, b);
    redis.signal('SIGSTOP');
    try {
      a.spend(1);
      b.spend(2);
      await eventually('own counts', () => a.spent() === 31 && b.spent() === 32, waitMs);
      await eventually('it is known to hang', () => a.isUnknown() && b.isUnknown(), waitMs);
      const late = new Member('c');
      const startMs = performance.now();
      await late.ledger.start();
      expect(performance.now() - startMs, 'a start does not wait for it').toBeLessThan(5000);
      expect(late.isUnknown()).toBe(true);
    } finally {
      redis.signal('SIGCONT');
    }
    await allKnow(33, ...members);
    for (const each of members) await eventually('it is known', () => !each.isUnknown(), waitMs);
    expect(a.said.filter((text) => text === 'down')).toHaveLength(1);
  });

  test('Redis hangs over a restart: what others have spent stays, and what is spent here counts', async () => {
    const [a, b] = [await started('a'), await started('b')];
    a.spend(10);
    b.spend(85);
    b.spend(3, 'other');
    await allKnow(95, a, b);
    await eventually('the other too', () => a.spent(other.row) === 3, waitMs);
    redis.signal('SIGSTOP');
    let again: Member;
    try {
      await a.ledger.close(1000);
      again = await started('a');
      expect([again.spent(), again.spent(other.row)]).toEqual([95, 3]);
      expect([again.isRefused(), again.isUnknown()]).toEqual([false, true]);
      again.spend(5);
      await eventually('its budget is spent', () => again.isRefused(), waitMs);
      // Once more, from what it has not heard again itself.
      await again.ledger.close(1000);
      again = await started('a');
      expect([again.spent(), again.isRefused(), again.isRefused(other.row)]).toEqual([
        100,
        true,
        false,
      ]);
    } finally {
      redis.signal('SIGCONT');
    }
    await allKnow(100, again, b);
  });

  test('what was heard is of its day and its month', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-12-31T23:59:50.000Z') });
    const [a, b] = [await started('a'), await started('b')];
    b.spend(100);
    await eventually('the day is spent', () => a.isRefused(), waitMs);
    await a.ledger.close(1000);
    await redis.kill();
    try {
      vi.setSystemTime(Date.parse('2027-01-01T00:00:01.000Z'));
      const again = await started('a');
      expect([again.spent(), again.isRefused()]).toEqual([0, false]);
    } finally {
      await redis.startAgain();
    }
  });

  test('Redis takes no writes: own counts, and is told later', async () => {
    const [a, b] = [await started('a'), await started('b')];
    b.spend(20);
    await allKnow(20, a, b);
    redis.cli('config', 'set', 'maxmemory', '1');
    try {
      a.spend(1);
      await eventually('it is known', () => a.isUnknown(), waitMs);
      expect(a.spent()).toBe(21);
    } finally {
      redis.cli('config', 'set', 'maxmemory', '0');
    }
    await allKnow(21, a, b);
    expect(a.isUnknown()).toBe(false);
  });

  test('something else under the name of one tenant, and a script that is gone', async () => {
    const now = new Date().toISOString();
    redis.cli('set', `test:{acme}:budget:${now.slice(0, 7)}`, 'x');
    const [a, b] = [await started('a'), await started('b')];
    a.spend(1, 'other');
    await eventually('the other is known', () => b.spent(other.row) === 1, waitMs);
    expect([a.isUnknown(), a.isUnknown(other.row)]).toEqual([true, false]);
    expect(a.said).toEqual(['refused acme', 'up']);
    redis.cli('del', `test:{acme}:budget:${now.slice(0, 7)}`);
    redis.cli('script', 'flush');
    a.spend(2);
    await allKnow(2, a, b);
    expect(a.isUnknown()).toBe(false);
  });

  test('whatever happens in whatever order: each amount counts once', async () => {
    const random = createPrng(seed);
    const running = new Map<string, Member>();
    for (const name of ['a', 'b', 'c']) running.set(name, await started(name));
    let sum = 0;
    let hasLostState = false;
    for (let step = 0; step < 40; step++) {
      const name = ['a', 'b', 'c'][random.below(3)]!;
      const member = running.get(name)!;
      const kind = random.below(10);
      if (kind < 6) {
        const amount = 1 + random.below(9);
        sum += amount;
        member.spend(amount);
        // Mostly many are under way at once.
        if (random.below(3) === 0) {
          await eventually('it has read that', () => running.get(name)!.spent() > 0, waitMs);
        }
      } else if (kind === 6) {
        running.set(name, await started(name)); // beside the other process
        await member.ledger.close(1000);
      } else if (kind === 7) {
        await member.ledger.close(1000);
        running.set(name, await started(name));
      } else if (kind === 8) {
        // It has told all it knows before it loses its state, and no other process of it is alive.
        await allKnow(sum, ...running.values());
        await member.ledger.close(1000);
        rmSync(stateFileOf(member.path));
        hasLostState = true;
        running.set(name, await started(name));
      } else if (!hasLostState) {
        redis.cli('flushall'); // those that run know all there is to tell
      }
    }
    await allKnow(sum, ...running.values());
  }, 120_000);

  test('another day: the month goes on, and the day begins anew', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-12-14T23:59:50.000Z') });
    const [a, b] = [await started('a'), await started('b')];
    a.spend(100);
    await eventually('the day is spent', () => b.isRefused(), waitMs);
    vi.setSystemTime(Date.parse('2026-12-15T00:00:01.000Z'));
    await eventually('it is let in', () => !b.isRefused() && !a.isRefused(), waitMs);
    b.spend(5);
    await allKnow(105, a, b);
    expect(a.table.readTenant(acme.row, 'daySpent')).toBe(inBillionths(5));
  });

  test('more tenants than a round asks about: each has its turn, those that spend at once', async () => {
    const many = Array.from({ length: 2500 }, (_, i) => ({ ...acme, tenant: `t${i}`, row: i }));
    const [a, b] = [await started('a', many), await started('b', many)];
    a.spend(1, 't2400');
    b.spend(1, 't2400');
    for (const each of [a, b]) {
      await eventually('both are known', () => each.spent(2400) === 2, waitMs);
    }
    a.spend(3, 't7');
    await eventually('it has its turn', () => b.spent(7) === 3, waitMs);
  });
});
