/** How long the deliveries of requests that are with the scheduler are kept. */
import { expect, test } from 'vitest';
import { Deliveries } from '../../../src/forwarder/deliveries.ts';
import type { Price } from '../../../src/lib/price.ts';
import { observedBody } from '../../../src/protocol/continued-body.ts';
import { routes } from '../../../src/protocol/routes.ts';
import { Asks } from '../../../src/protocol/stream-options.ts';
import { LimitsLayout } from '../../../src/shm/limits.layout.ts';
import { LimitTable } from '../../../src/shm/limits.ts';
import { limitCounts } from '../../../src/shm/memory.ts';
import { RequestFlag, SlotState } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';
import type { ModelRow } from '../../../src/shm/threads.ts';

const { reading, queued, dispatched, resuming, settled } = SlotState;
const slot = 3;
const us = 1_000_000;
const body = Buffer.from('{"messages":[{"role":"user","content":"x"}],"stream":true}');

interface Billing {
  readonly limitRow?: number;
  readonly limitModelRow?: number;
  readonly flags?: number;
  readonly choices?: number;
  readonly price?: Price;
  readonly streamUsage?: NonNullable<ModelRow['streamUsage']>;
}

/** With a request that broke and is with the scheduler. Limit row 0 counts requests, 1 input and 2 output. */
function fixture(
  mode: 'text' | 'token_ids' | 'off' = 'text',
  bytes: Uint8Array = body,
  { limitRow = -1, limitModelRow = -1, flags = 0, choices = 1, ...model }: Billing = {},
) {
  const slots = new RequestSlots(createRequestSlots(8), 8);
  const { words, at } = slots;
  const row = slots.row(slot);
  slots.transition(slot, slots.claim(slot), reading, queued);
  const lease = slots.startAttempt(slot, slots.lease(slot));
  words[row + at.flags] = RequestFlag.stream | flags;
  words[row + at.choices] = choices;
  words[row + at.limitRow] = limitRow;
  words[row + at.limitModelRow] = limitModelRow;
  words[row + at.route] = routes.find(({ shape }) => shape === 'openai-chat')?.id ?? -1;
  const continuation = { mode, bytesMax: 16 * 1024 * 1024 };
  const named = { name: 'm', aliases: [], policy: '', sessionAffinity: false };
  const rows = [{ ...named, continuation, ...model }];
  const limits = new LimitTable(LimitsLayout.create(limitCounts));
  const counts = [limits.at.requestRate, limits.at.inputRate, limits.at.outputRate];
  for (const [limited, field] of counts.entries()) {
    limits.doubles[(limits.word(limited) + field) >> 1] = 1;
  }
  const deliveries = new Deliveries(slots, rows, limits);
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

test('a hedge has a delivery like that of the exchange beside it, whatever that one sends', () => {
  const { deliveries, delivery, lease } = fixture();
  const hedge = deliveries.openHedge(slot, lease);
  expect(hedge).not.toBe(delivery);
  expect(hedge?.plan).toBe(delivery?.plan);
});

const price: Price = { input: 1, cachedInput: 1, output: 1 };
const atEnd = { mode: 'usage', asks: Asks.usageAtEnd };
const always = { mode: 'usage', asks: Asks.usageAlways };
const includeUsage = RequestFlag.includeUsage;

test.each<[string, Billing, object | undefined]>([
  ['who is neither billed nor limited by it', {}, undefined],
  ['a model with a price', { price }, atEnd],
  ['a tenant with a limit on input', { limitRow: 1 }, atEnd],
  ['a tenant with a limit on output', { limitRow: 2 }, atEnd],
  ['a tenant with a limit on output of the model', { limitRow: 0, limitModelRow: 2 }, atEnd],
  ['a tenant whose limits count no tokens', { limitRow: 0, limitModelRow: 0 }, undefined],
  ['a client that has asked for it', { price, flags: includeUsage }, undefined],
  ['a model with a price that forbids it', { price, streamUsage: 'off' }, undefined],
  ['a model that says so', { streamUsage: 'end' }, atEnd],
  ['a model that says always', { streamUsage: 'continuous' }, always],
  [
    'always, though asked for at the end',
    { streamUsage: 'continuous', flags: includeUsage },
    always,
  ],
  ['always, of several choices', { streamUsage: 'continuous', choices: 2 }, atEnd],
])('usage is asked for as it should be: %s', (_, billing, expected) => {
  const { delivery } = fixture('off', body, billing);
  if (expected === undefined) expect(delivery).toBeUndefined();
  else expect(delivery?.plan).toMatchObject(expected);
});

test('usage is asked for however long the body is, and whatever its options are called', () => {
  const long = Buffer.concat([body, Buffer.alloc(5 * 1024 * 1024, ' ')]);
  expect(fixture('off', long, { price }).delivery?.plan).toMatchObject(atEnd);
  // A key of the client is edited, never written a second time: a parser may refuse the two of them.
  const escaped = Buffer.from('{"stream":true,"stream\\u005foptions":{"\\u0078":1,"y":2}}');
  const plan = fixture('off', escaped, { price }).delivery?.plan;
  expect(plan).toMatchObject(atEnd);
  expect(observedBody(escaped, plan!).toString()).toBe(
    '{"stream":true,"stream\\u005foptions":{"include_usage":true,"\\u0078":1,"y":2}}',
  );
});
