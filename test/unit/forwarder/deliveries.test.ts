/** How long the deliveries of requests that are with the scheduler are kept. */
import { expect, test } from 'vitest';
import { Deliveries } from '../../../src/forwarder/deliveries.ts';
import { routes } from '../../../src/protocol/routes.ts';
import { RequestFlag, SlotState } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';

const { reading, queued, dispatched, resuming, settled } = SlotState;
const slot = 3;
const us = 1_000_000;
const body = Buffer.from('{"messages":[{"role":"user","content":"x"}],"stream":true}');

/** With a request that broke and is with the scheduler. */
function fixture(mode: 'text' | 'token_ids' = 'text', bytes: Uint8Array = body) {
  const slots = new RequestSlots(createRequestSlots(8), 8);
  const { words, at } = slots;
  const row = slots.row(slot);
  slots.transition(slot, slots.claim(slot), reading, queued);
  const lease = slots.startAttempt(slot, slots.lease(slot));
  words[row + at.flags] = RequestFlag.stream;
  words[row + at.choices] = 1;
  words[row + at.route] = routes.find(({ shape }) => shape === 'openai-chat')?.id ?? -1;
  const continuation = { mode, bytesMax: 16 * 1024 * 1024 };
  const rows = [{ name: 'm', aliases: [], policy: '', sessionAffinity: false, continuation }];
  const deliveries = new Deliveries(slots, rows);
  const delivery = deliveries.open(slot, lease, bytes);
  delivery?.suspend(1);
  slots.transition(slot, lease, dispatched, resuming);
  return { slots, deliveries, delivery, lease };
}

test('one that is with the scheduler is kept, and forgotten once the request is over', () => {
  const { slots, deliveries, delivery, lease } = fixture();
  expect(delivery).toBeDefined();
  deliveries.release(slot);
  deliveries.sweep(us);
  expect(deliveries.waits).toBe(true);
  slots.transition(slot, lease, resuming, settled);
  deliveries.sweep(us + 19_999); // not looked at: that was a moment ago
  expect(deliveries.waits).toBe(true);
  deliveries.sweep(us + 20_000);
  expect(deliveries.waits).toBe(false);
  expect(deliveries.find(slot, lease)).toBeUndefined();
});

test('one that goes on is found, and not waited for', () => {
  const { deliveries, delivery, lease } = fixture();
  deliveries.release(slot);
  expect(deliveries.find(slot, lease)).toBe(delivery);
  expect(deliveries.waits).toBe(false);
});

test('the ids of a request above 4 MiB are not asked for', () => {
  const padded = (bytes: number) => {
    return Buffer.concat([Buffer.alloc(bytes - body.length, ' '), body]);
  };
  const most = 4 * 1024 * 1024;
  expect(fixture('token_ids', padded(most)).delivery).toBeDefined();
  expect(fixture('token_ids', padded(most + 1)).delivery).toBeUndefined();
  expect(fixture('text', padded(most + 1)).delivery).toBeDefined();
});
