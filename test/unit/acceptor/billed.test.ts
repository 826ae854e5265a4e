/** What requests are billed for whose replicas have not counted their tokens. */
import { expect, test } from 'vitest';
import { billedOf } from '../../../src/acceptor/billed.ts';
import { RequestFlag, SlotState } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';

const slot = 1;
const { generates, background, stream, readsMore } = RequestFlag;

function scene() {
  const slots = new RequestSlots(createRequestSlots(4), 4);
  const state = { slots, reckonings: new WeakMap() };
  slots.transition(slot, slots.claim(slot), SlotState.reading, SlotState.queued);
  slots.startAttempt(slot, slots.lease(slot));
  const { words, at } = slots;
  const row = slots.row(slot);
  type Column = 'promptTokens' | 'completionTokens' | 'producedBytes' | 'flags' | 'maxTokens';
  /** A request for a choice of 8000 bytes of text, answered with 200 and no usage, but for `more`. */
  return (more: Partial<Record<Column | 'textBytes' | 'status', number>>) => {
    const plain = { cachedTokens: -1, promptTokens: -1, completionTokens: -1, choices: 1 };
    const sent = { textBytes: 8000, flags: generates, maxTokens: 0 };
    const answer = { producedBytes: 0, status: 200 };
    for (const [name, value] of Object.entries({ ...plain, ...sent, ...answer, ...more })) {
      words[row + (at[name as Column] as number)] = value;
    }
    return { ...billedOf(state, { slot, status: 200, facts: { holder: undefined } }) };
  };
}

test('an answer in one piece whose engine has counted nothing is estimated', () => {
  const billed = scene();
  expect(billed({ producedBytes: 400 })).toMatchObject({
    input: 2000,
    output: 100,
    estimated: true,
  });
  expect(billed({ producedBytes: 400, status: 400 })).toMatchObject({ input: null, output: null });
  expect(billed({})).toMatchObject({ input: null, output: null, estimated: false });
});

test('where no model reads a text nothing is billed', () => {
  const event = scene()({ textBytes: 0, flags: 0, producedBytes: 4000 });
  expect(event).toMatchObject({ input: null, output: null, estimated: false });
});

test('a response that is made in the background is billed as long as it may be', () => {
  const billed = scene();
  for (const flags of [generates | background, generates | background | stream]) {
    const queued = { flags, producedBytes: 900 };
    expect(billed({ ...queued, maxTokens: 5000 })).toMatchObject({ output: 5000, estimated: true });
    expect(billed({ ...queued, promptTokens: 70, completionTokens: 9 })).toMatchObject({
      ...{ input: 70, output: 9, estimated: false },
    });
  }
});

test('one without a limit is billed as answers of the same key have taught', () => {
  const billed = scene();
  const queued = { flags: generates | background, producedBytes: 900 };
  expect(billed(queued)).toMatchObject({ output: 256, estimated: true });
  for (let i = 0; i < 20; i++) billed({ promptTokens: 2000, completionTokens: 4000 });
  const { output } = billed(queued);
  expect(output).toBeGreaterThan(3900);
  expect(output).toBeLessThanOrEqual(4000);
});

test('a prompt of which more is elsewhere teaches nothing of bytes per token', () => {
  const billed = scene();
  for (let i = 0; i < 20; i++) billed({ flags: generates | readsMore, promptTokens: 8000 });
  expect(billed({ producedBytes: 400 }).input).toBe(2000);
});
