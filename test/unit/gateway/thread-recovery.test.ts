/** What the main thread makes of a thread that died. */
import { beforeEach, expect, test } from 'vitest';
import { ThreadRecovery } from '../../../src/gateway/thread-recovery.ts';

let started: string[];
let restarted: string[];
let givenUp: string[];
let finish: { resolve: () => void; reject: (error: unknown) => void };
let recovery: ThreadRecovery;

beforeEach(() => {
  started = [];
  restarted = [];
  givenUp = [];
  recovery = new ThreadRecovery({
    logger: { error: () => {}, warn: () => {} },
    start: (name) => {
      started.push(name);
      return new Promise((resolve, reject) => {
        finish = { resolve, reject };
      });
    },
    onRestarted: (name) => restarted.push(name),
    giveUp: (reason) => givenUp.push(reason),
  });
});

async function serves(): Promise<void> {
  finish.resolve();
  await Promise.resolve();
  await Promise.resolve();
}

test('a thread that died is started again', async () => {
  recovery.died('scheduler', new Error('x'));
  expect(started).toEqual(['scheduler']);
  expect(restarted).toEqual([]);
  await serves();
  expect(restarted).toEqual(['scheduler']);
  expect(givenUp).toEqual([]);
});

test('a death while a successor is on its way ends the gateway', () => {
  recovery.died('scheduler', new Error('x'));
  recovery.died('forwarder-1', new Error('y'));
  expect(givenUp).toEqual(['forwarder-1 died while scheduler was started again']);
  expect(started).toEqual(['scheduler']);
});

test('a successor that cannot start ends the gateway', async () => {
  recovery.died('forwarder-0', new Error('x'));
  finish.reject(new Error('no'));
  await expect.poll(() => givenUp).toEqual(['forwarder-0 could not be started again']);
  expect(restarted).toEqual([]);
});

test('the sixth death within a minute ends the gateway', async () => {
  for (let death = 0; death < 5; death++) {
    recovery.died('forwarder-0', new Error('x'));
    await serves();
  }
  expect(restarted).toHaveLength(5);
  recovery.died('scheduler', new Error('x'));
  expect(givenUp).toEqual(['scheduler died, the 6th thread within a minute']);
  expect(started).toHaveLength(5);
});
