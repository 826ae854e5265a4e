/** SIGUSR2, and then one of the two processes does not live as it should, or both are told to go. */
import { describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { isAlive } from '../support/pids.ts';
import { configOf, quickHealth, total } from '../support/scenario.ts';
import {
  alone,
  expectWhole,
  gated,
  heldStreams,
  serves,
  startMs,
  supervised,
} from '../support/take-over.ts';
import { eventually } from '../support/until.ts';

test('one that dies before it serves keeps the old one, and a wish that waited is next', {
  timeout: 3 * startMs,
}, async () => {
  await gated({}, async (gateway, gate) => {
    const old = gateway.servingPid;
    gateway.kill('SIGUSR2');
    await gate.asked;
    const [, next = 0] = gateway.servingPids;
    gateway.kill('SIGUSR2');
    await gateway.said('a restart is under way; another follows it');
    expect(gateway.servingPids).toEqual([old, next]);
    gate.shut();
    process.kill(next, 'SIGKILL');
    await gateway.said('restart failed: the new process ended (SIGKILL) before it served');
    expect((await gateway.ready()).status).toBe(200);
    await gate.asked;
    expect(gateway.servingPids[0]).toBe(old);
    gate.release();
    await gateway.starts(2);
    await alone(gateway);
    expect((await gateway.cluster()).pid).toBe(gateway.servingPid);
    expect(gateway.output()).not.toContain('starting it again');
  });
});

test('one that is not ready in time is ended', { timeout: 2 * startMs }, async () => {
  await gated({ restart: { timeout: '500ms' } }, async (gateway) => {
    const old = gateway.servingPid;
    gateway.kill('SIGUSR2');
    await gateway.said('restart failed: the new process did not serve within 500 ms');
    await alone(gateway);
    expect(gateway.servingPid).toBe(old);
    expect((await gateway.ready()).status).toBe(200);
    expect(await gateway.stop()).toEqual({ code: 0, signal: null });
  });
});

describe('SIGTERM', () => {
  test('while the new one starts ends both', { timeout: 2 * startMs }, async () => {
    await gated({}, async (gateway, gate) => {
      gateway.kill('SIGUSR2');
      await gate.asked;
      const pids = gateway.servingPids;
      expect(pids).toHaveLength(2);
      expect(await gateway.stop()).toEqual({ code: 0, signal: null });
      expect(pids.filter(isAlive)).toEqual([]);
      expect(gateway.output()).not.toContain('restart failed');
    });
  });

  test('while the old one leaves ends both, and its streams are finished', {
    timeout: 2 * startMs,
  }, async () => {
    await supervised({}, async (gateway, replica) => {
      const readings = await heldStreams(gateway, replica, 2);
      gateway.kill('SIGUSR2');
      await gateway.said('another process has taken over');
      const pids = gateway.servingPids;
      expect(pids).toHaveLength(2);
      const exit = gateway.stop();
      await eventually('the new one is gone', () => !isAlive(pids[1]!));
      replica.gate.release();
      await expectWhole(readings);
      expect(await exit).toEqual({ code: 0, signal: null });
      expect(pids.filter(isAlive)).toEqual([]);
    });
  });
});

describe('a crash', () => {
  test('of the old one while the new one starts: the new one serves', {
    timeout: 2 * startMs,
  }, async () => {
    await gated({}, async (gateway, gate) => {
      gateway.kill('SIGUSR2');
      await gate.asked;
      const [old = 0, next] = gateway.servingPids;
      process.kill(old, 'SIGKILL');
      await alone(gateway);
      gate.release();
      await gateway.starts(2);
      expect(gateway.servingPids).toEqual([next]);
      expect((await gateway.ready()).status).toBe(200);
      expect(gateway.output()).not.toContain('starting it again');
    });
  });

  test('of the old one while the new one waits for replicas: it serves as one that starts alone', {
    timeout: 2 * startMs,
  }, async () => {
    await supervised({ health: quickHealth }, async (gateway, _, config) => {
      const url = `http://127.0.0.1:${await freePort()}`;
      gateway.writeConfig(configOf([{ url }], config));
      gateway.kill('SIGUSR2');
      await gateway.said('waits for healthy replicas before it takes over');
      const [old = 0, next] = gateway.servingPids;
      process.kill(old, 'SIGKILL');
      await gateway.starts(2);
      expect(gateway.servingPids).toEqual([next]);
      expect(await serves(gateway)).toBe(503);
      expect(gateway.output()).not.toContain('starting it again');
      await gateway.said('this process has taken over');
      expect(total(await gateway.metrics(), 'sluice_restarts_total', { result: 'ok' })).toBe(1);
    });
  });

  test('of the new one while the old one leaves: another is started, streams go on', {
    timeout: 3 * startMs,
  }, async () => {
    await supervised({}, async (gateway, replica) => {
      const readings = await heldStreams(gateway, replica, 2);
      gateway.kill('SIGUSR2');
      await gateway.said('another process has taken over');
      process.kill(gateway.servingPids[1]!, 'SIGKILL');
      await gateway.said('(SIGKILL); starting it again in 100 ms');
      await gateway.starts(3);
      expect(await serves(gateway)).toBe(200);
      replica.gate.release();
      await expectWhole(readings);
      await alone(gateway);
      expect(await serves(gateway)).toBe(200);
    });
  });
});
