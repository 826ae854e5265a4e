import { expect, test } from 'vitest';
import { handoverOf, type Standing } from '../../../src/gateway/handover.ts';
import { ReplicaAdmin } from '../../../src/shm/replica-table.layout.ts';

const minuteMs = 60_000;
const fit: Standing = { model: 0, admin: ReplicaAdmin.active, healthy: true, weight: 1 };
const loading: Standing = { ...fit, healthy: false };

test('it leaves as soon as another of its model can serve', () => {
  expect(handoverOf(fit, [loading, fit], 0)).toBe('leave');
});

test.each<[string, Standing[]]>([
  ['nobody', []],
  ['one that loads', [loading]],
  ['one of another model', [{ ...fit, model: 1 }]],
  ['one that is drained', [{ ...fit, admin: ReplicaAdmin.draining }]],
  ['one without weight', [{ ...fit, weight: 0 }]],
])('it waits while there is %s', (_, staying) => {
  expect(handoverOf(fit, staying, 0)).toBe('wait');
  expect(handoverOf(fit, staying, 15 * minuteMs)).toBe('wait');
  expect(handoverOf(fit, staying, 15 * minuteMs + 1)).toBe('late');
});

test('unhealthy it waits as well: it may be back before the others', () => {
  expect(handoverOf(loading, [loading], 0)).toBe('wait');
  expect(handoverOf(loading, [fit], 0)).toBe('leave');
});

test('drained by hand or without weight it has nothing to wait for', () => {
  expect(handoverOf({ ...fit, admin: ReplicaAdmin.draining }, [], 0)).toBe('leave');
  expect(handoverOf({ ...fit, weight: 0 }, [], 0)).toBe('leave');
});
