/**
 * What one gateway has of a bucket of prompt tokens in a store: the end of a scheduler and a limiter over the
 * memory between them, without their threads.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { Admission, type Questions } from '../../src/dispatch/limit-rows.ts';
import { Limits } from '../../src/dispatch/limits.ts';
import { nowUs } from '../../src/lib/clock.ts';
import { Limiter, type LimiterOptions } from '../../src/limiter/limiter.ts';
import { RedisStore } from '../../src/limiter/redis-store.ts';
import { AskRingLayout } from '../../src/shm/leases.layout.ts';
import { LeaseTable } from '../../src/shm/leases.ts';
import { LimitTable } from '../../src/shm/limits.ts';
import { askRingCapacity, createMemory } from '../../src/shm/memory.ts';
import { SpscProducer } from '../../src/shm/spsc-ring.ts';
import type { LimitNames } from '../../src/shm/threads.ts';
import { eventually } from './until.ts';

export const memberSlots = 64;
const size = {
  acceptors: 1,
  forwarders: 1,
  slots: memberSlots,
  arenaBytes: 1 << 20,
  responseRingBytes: 1 << 16,
};

export const storeOf = (url: string): RedisStore =>
  new RedisStore({
    ...{ mode: 'single', urls: [url], master: '', username: '', password: '', timeoutMs: 5000 },
  });

export const memberNames = (tenant: string, owner: number): LimitNames =>
  new Map([[0, { name: `{${tenant}}`, owner }]]);

function createLimiter(url: string, memory: LimiterOptions['memory']): Limiter {
  const limiter = new Limiter({
    memory,
    store: storeOf(url),
    prefix: 'test:',
    wakeScheduler: () => {},
    onState: () => {},
    onCall: () => {},
  });
  limiter.setNames(memberNames('t', 1));
  return limiter;
}

/** What one gateway has of a bucket: a scheduler's end and a limiter. */
export class Member {
  readonly limits: Limits;
  readonly leases: LeaseTable;
  readonly limiter: Limiter;
  /** Another one of the same memory. */
  readonly successor: () => Limiter;
  readonly asked: Questions;
  readonly #table: LimitTable;

  constructor(url: string, bucket: { inputRate: number; inputBurst: number }) {
    const memory = createMemory({ ...size, limiters: 1 });
    const { sharedLimits } = memory;
    if (sharedLimits === null) throw new Error('limits are shared');
    const table = new LimitTable(memory.limits);
    const word = table.word(0);
    table.words[word + table.at.owner] = 1;
    table.doubles[(word + table.at.inputRate) >> 1] = bucket.inputRate;
    table.doubles[(word + table.at.inputBurst) >> 1] = bucket.inputBurst;
    this.#table = table;
    this.leases = new LeaseTable(sharedLimits.leases);
    const producer = new SpscProducer(AskRingLayout, sharedLimits.asks, askRingCapacity);
    this.limits = new Limits(table, memberSlots, {
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
      rows: new Int32Array(2 * memberSlots).fill(-1),
      numbers: new Int32Array(2 * memberSlots),
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

  /** Another tenant has the row; its name comes to the limiter later. */
  changeOwner(owner: number): void {
    this.#table.words[this.#table.word(0) + this.#table.at.owner] = owner;
  }

  /** What the request would take of the bucket is taken, or it is refused; whatever has to be asked is. */
  async take(slot: number, cost: number): Promise<boolean> {
    const limited = { slot, limitRow: 0, limitModelRow: -1 };
    for (;;) {
      const admission = this.limits.admit(limited, cost, 0, nowUs());
      if (admission !== Admission.asks) return admission === Admission.admitted;
      this.limits.ask(limited, this.asked, 2 * slot);
      await this.isAnswered();
    }
  }

  /** The request is over and has come to so much. */
  end(slot: number, used: number): void {
    this.limits.began(slot);
    this.limits.used(slot, used, 0);
    this.limits.close(slot, true, nowUs());
  }

  /** Resolves once what was asked is answered. */
  async isAnswered(): Promise<void> {
    const { words, at } = this.leases;
    const word = this.leases.word(0);
    await eventually('the question is answered', async () => {
      this.limiter.drain();
      await turn();
      return words[word + at.asked] === words[word + at.answered];
    });
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
