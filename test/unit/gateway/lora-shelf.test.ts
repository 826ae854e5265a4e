/** What a replica has on its shelf, by what it lists and answers, and the bits of its row. */
import { beforeEach, expect, test } from 'vitest';
import { LoraDemand } from '../../../src/gateway/lora-demand.ts';
import { ReplicaShelf } from '../../../src/gateway/lora-shelf.ts';
import { type Member, Membership } from '../../../src/gateway/membership.ts';
import { nowMs, nowUs } from '../../../src/lib/clock.ts';
import { ReplicaRows } from '../../../src/scheduler/replica-rows.ts';
import { createMemory, type SharedMemory } from '../../../src/shm/memory.ts';
import { SlotState } from '../../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../../src/shm/request-slots.ts';

const names = ['kept', 'x', 'y'];
const lora = {
  ...{ engine: 'vllm' as const, max_loaded: 8, load_timeout: 1000, retry_after: 1000 },
  adapters: ['x', 'y'].map((name) => ({ name, path: `/p/${name}` })),
};

const numbers = new Map(names.map((name, i) => [name, i + 1]));
const model = { index: 0, lora, adapters: names, numbers };

let memory: SharedMemory;
let membership: Membership;
let member: Member;
let shelf: ReplicaShelf;

beforeEach(() => {
  const sizes = { acceptors: 1, forwarders: 1, slots: 8 };
  memory = createMemory({ ...sizes, arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 });
  membership = new Membership(memory, [names], [['x', 'y']]);
  const spec = { name: 'a', url: 'http://a:1', api_key: '', weight: 1, max_in_flight: 8 };
  const cost = { prefill_us: 1, resident_us: 1, kv_tokens: 0 };
  member = membership.add({ ...spec, ...cost, adapters: ['kept'] }, 0) as Member;
  membership.activate(member);
  membership.setHealthy(member, true, '');
  shelf = new ReplicaShelf(member, model, membership, () => new LoraDemand(memory).look());
  shelf.follow();
});

/** Names of what the row says it has, and of what it would load. */
function bits(): { has: string[]; loads: string[] } {
  let row = { has: [] as string[], loads: [] as string[] };
  new ReplicaRows(memory.replicas).read((at, { adapters, loadable }) => {
    const namesOf = (word: number): string[] => names.filter((_, i) => ((word >>> i) & 1) === 1);
    if (at === member.row) row = { has: namesOf(adapters![0]!), loads: namesOf(loadable![0]!) };
  });
  return row;
}

test('what it loads is in its row until it is given up', () => {
  expect(bits()).toEqual({ has: ['kept'], loads: ['x', 'y'] });
  shelf.put('y');
  expect(bits().has).toEqual(['kept', 'y']);
  shelf.take('y');
  expect(bits().has).toEqual(['kept']);
});

test('what it lists is what it has, once a list has shown what it loaded', () => {
  shelf.listed(new Set(['m', 'x', 'kept', 'stranger']));
  expect(bits().has).toEqual(['kept', 'x']);
  expect([...shelf.loaded]).toEqual(['x']);
  shelf.put('y');
  shelf.listed(new Set(['m', 'y']));
  expect(bits().has).toEqual(['kept', 'y']);
  shelf.listed(new Set(['m']));
  expect(bits().has).toEqual(['kept']);
});

test('an engine that does not list what it loads is believed by its answers', () => {
  shelf.put('x');
  // Asked at once, so that this is known before anything else has changed.
  expect(shelf.listAtMs).toBe(0);
  shelf.listed(new Set(['m']));
  shelf.listed(new Set(['m']));
  expect(bits().has).toEqual(['kept', 'x']);
});

test('a list says nothing of an adapter that was loaded after it was asked for', () => {
  const { turn } = shelf;
  shelf.put('x');
  expect(shelf.turn).not.toBe(turn);
});

test('a replica that went away has nothing, and is asked what it has when it is back', () => {
  shelf.put('x');
  shelf.listAtMs = Number.POSITIVE_INFINITY;
  membership.setHealthy(member, false, 'gone');
  shelf.follow();
  expect(bits()).toEqual({ has: ['kept'], loads: ['x', 'y'] });
  membership.setHealthy(member, true, '');
  shelf.follow();
  expect(shelf.listAtMs).toBe(0);
});

test('what it could not load it does not offer until its time is over', () => {
  shelf.failed('x', { untilMs: nowMs() + 60_000, isRefused: true });
  shelf.follow();
  expect(bits().loads).toEqual(['y']);
  expect(shelf.isFailing('x')).toBe(true);
  shelf.failed('x', { untilMs: nowMs(), isRefused: true });
  shelf.follow();
  expect(bits().loads).toEqual(['x', 'y']);
});

test('who waits goes on waiting where it was not the engine that refused', () => {
  shelf.failed('x', { untilMs: nowMs() + 60_000, isRefused: false });
  expect(shelf.isFailing('x')).toBe(true);
  expect(bits().loads).toEqual(['x', 'y']);
  // A replica that has come back is asked anew.
  membership.setHealthy(member, false, 'gone');
  shelf.follow();
  expect(shelf.isFailing('x')).toBe(false);
});

test('what is asked of a replica ends when it becomes unhealthy', () => {
  const { signal } = shelf;
  membership.setHealthy(member, false, 'gone');
  shelf.follow();
  expect(signal.aborted).toBe(true);
  expect(shelf.signal.aborted).toBe(false);
});

test('an adapter is new until it is used', () => {
  const rows = new ReplicaRows(memory.replicas);
  const use = (adapter: string): void =>
    rows.countDispatched(member.row, 1 + names.indexOf(adapter), nowUs() + 1000);
  shelf.put('x');
  expect(shelf.isNew('x')).toBe(true);
  use('y');
  expect(shelf.isNew('x')).toBe(true);
  use('x');
  expect(shelf.isNew('x')).toBe(false);
  // One that was found there is waited for by nobody.
  shelf.listed(new Set(['x', 'y']));
  expect(shelf.isNew('y')).toBe(false);
});

test('what a reload has replaced and still runs has the adapters of its engine too', () => {
  shelf.put('x');
  membership.giveUpName(member);
  membership.leave(member);
  const spec = { name: 'a', url: 'http://a:1', api_key: '', weight: 1, max_in_flight: 9 };
  const cost = { prefill_us: 1, resident_us: 1, kv_tokens: 0, adapters: [] };
  const next = membership.add({ ...spec, ...cost }, 0) as Member;
  membership.activate(next);
  membership.setHealthy(next, true, '');
  const now = new ReplicaShelf(next, model, membership, () => new LoraDemand(memory).look());
  now.follow();
  now.listed(new Set(['x']));
  const slots = new RequestSlots(memory.slots, 8);
  const lease = slots.claim(3);
  const row = slots.row(3);
  slots.words[row + slots.at.adapter] = 1 + names.indexOf('x');
  slots.words[row + slots.at.replica] = member.row;
  slots.transition(3, lease, SlotState.reading, SlotState.queued);
  slots.startAttempt(3, lease);
  expect(now.isUsed('x')).toBe(true);
  now.take('x');
  expect(bits().has).toEqual(['kept']);
});

test('who waits and who runs is counted in the slots', () => {
  const slots = new RequestSlots(memory.slots, 8);
  const demand = new LoraDemand(memory);
  const { at, words } = slots;
  const x = 1 + names.indexOf('x');
  const lease = slots.claim(3);
  const row = slots.row(3);
  words[row + at.model] = 0;
  words[row + at.adapter] = x;
  words[row + at.pin] = 0;
  words[row + at.replica] = member.row;
  words[row + at.hedgeReplica] = member.row + 1;
  slots.writeTime(3, at.publishedUs, 42);
  const waits = (): unknown[] => [...demand.look().waits.values()];
  expect(waits()).toEqual([]);
  expect(shelf.isUsed('x')).toBe(false);
  slots.transition(3, lease, SlotState.reading, SlotState.queued);
  expect(waits()).toEqual([{ model: 0, adapter: x, pin: -1, sinceUs: 42 }]);
  expect(shelf.isUsed('x')).toBe(false);
  const attempt = slots.startAttempt(3, lease);
  expect(waits()).toEqual([]);
  expect(shelf.isUsed('x')).toBe(true);
  // A hedge uses it as well; another adapter, or another replica, does not.
  const { isUsed } = demand.look();
  expect(isUsed(member.row + 1, x)).toBe(true);
  expect(isUsed(member.row + 2, x)).toBe(false);
  expect(isUsed(member.row, x + 1)).toBe(false);
  words[row + at.pin] = 1 + member.row;
  slots.transition(3, attempt, SlotState.dispatched, SlotState.resuming);
  expect(waits()).toEqual([{ model: 0, adapter: x, pin: member.row, sinceUs: 42 }]);
});

test('it serves what it alone can serve while it drains, and nothing once it leaves', () => {
  const seen = (): boolean[] => [shelf.isRoutable, shelf.isReachable];
  expect(seen()).toEqual([true, true]);
  membership.drain(member);
  expect(seen()).toEqual([false, true]);
  membership.leave(member);
  expect(seen()).toEqual([false, false]);
});

test('where a drain took too long nothing is drained for a while', () => {
  expect(shelf.mayDrain).toBe(true);
  shelf.drainLater(nowMs() + 60_000);
  expect(shelf.mayDrain).toBe(false);
});
