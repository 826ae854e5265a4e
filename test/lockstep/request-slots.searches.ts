/**
 * The slot table where two threads may act on one slot: an attempt's end, its recovery by the
 * scheduler, and a message that comes late.
 *
 * Promises: of two moves out of one state one succeeds; a request is settled once; an older attempt or
 * generation changes nothing.
 */
import { RequestSlotsLayout, SlotState } from '../../src/shm/request-slots.layout.ts';
import type { World } from './explorer.ts';
import type { Search, ShmModules } from './search.ts';
import type { Run, ThreadApi } from './virtual-thread.ts';

const { free, reading, queued, dispatched, streaming, resuming, settled } = SlotState;
const slot = 0;

/**
 * Two requests go through one slot. The forwarder ends its attempt; the scheduler, which takes the
 * forwarder for dead, takes the attempt away, starts another and settles that. Leases travel in a word per
 * thread, as they do in the rings. Notes: how often each has settled.
 */
function attemptWorld({ requestSlots: m }: ShmModules, requests: number): World {
  const region = m.createRequestSlots(1);
  const mail = new SharedArrayBuffer(4 * 160);
  const [toScheduler, toForwarder] = [32, 64];
  const { at } = RequestSlotsLayout.place({ slot: 1 });

  const acceptor: Run = (t) => {
    const slots = new m.RequestSlots(region, 1);
    const words = new Int32Array(mail);
    const seen = new Set<number>();
    for (let request = 1; request <= requests; request++) {
      const lease = slots.claim(slot);
      t.check(!seen.has(m.generationOf(lease)), 'a new generation for each request');
      seen.add(m.generationOf(lease));
      t.check(m.attemptOf(lease) === 0, 'a request begins with attempt 0');
      t.check(slots.transition(slot, lease, reading, queued), 'the reader publishes');
      Atomics.store(words, toScheduler, lease);
      t.checkpoint();
      const stamp = slots.stamp(slot);
      if (m.stateOf(stamp) !== settled) t.retry();
      t.check(m.generationOf(m.leaseOf(stamp)) === m.generationOf(lease), 'its own generation');
      t.check(slots.transition(slot, m.leaseOf(stamp), settled, free), 'the owner frees');
    }
  };

  const scheduler: Run = (t) => {
    const slots = new m.RequestSlots(region, 1);
    const words = new Int32Array(mail);
    let last = 0;
    let count = 0;
    for (let request = 1; request <= requests; request++) {
      t.checkpoint(count);
      const lease = Atomics.load(words, toScheduler);
      if (lease === last) t.retry();
      last = lease;
      const first = slots.startAttempt(slot, lease);
      t.check(first === lease + 1, 'the owner starts an attempt');
      t.check(slots.startAttempt(slot, lease) === -1, 'a running attempt is not started again');
      Atomics.store(words, toForwarder, first);
      if (!slots.transition(slot, first, dispatched, resuming)) continue;
      const second = slots.startAttempt(slot, first);
      t.check(second === first + 1, 'a resuming slot gets the next attempt');
      t.check(
        slots.holds(slot, second) && !slots.holds(slot, first),
        'the lease names the attempt',
      );
      t.check(slots.transition(slot, second, dispatched, settled), 'an attempt of its own ends');
      count++;
      t.checkpoint(count);
    }
    t.checkpoint(count);
  };

  const forwarder: Run = (t) => {
    const slots = new m.RequestSlots(region, 1);
    const words = new Int32Array(mail);
    let last = 0;
    let count = 0;
    for (let request = 1; request <= requests; request++) {
      t.checkpoint(count);
      const lease = Atomics.load(words, toForwarder);
      if (lease === last) t.retry();
      last = lease;
      if (slots.transition(slot, lease, dispatched, streaming)) {
        t.check(slots.transition(slot, lease, streaming, settled), 'what has begun is its own');
        count++;
      }
      t.checkpoint(count);
      t.check(!slots.transition(slot, lease, dispatched, settled), 'an ended attempt ends once');
    }
    t.checkpoint(count);
  };

  return {
    regions: [region, mail],
    threads: [
      { name: 'acceptor', run: acceptor },
      { name: 'scheduler', run: scheduler },
      { name: 'forwarder', run: forwarder, daemon: true },
    ],
    atEnd(view) {
      const count = view.notes(1)[0]! + view.notes(2)[0]!;
      // The forwarder may stand before its note.
      if (count > requests || (view.done(2) && count !== requests)) {
        throw new Error(`${count} settlements of ${requests} requests`);
      }
      if (view.word(0, at.slot.base) % 8 !== free) throw new Error('the slot is not free');
    },
  };
}

/** Two threads make the same move; one succeeds. */
function raceWorld(
  { requestSlots: m }: ShmModules,
  name: string,
  move: (slots: InstanceType<ShmModules['requestSlots']['RequestSlots']>, lease: number) => boolean,
): World {
  const region = m.createRequestSlots(1);
  const slots = new m.RequestSlots(region, 1);
  const lease = slots.claim(slot);
  slots.transition(slot, lease, reading, queued);
  const run = (t: ThreadApi): void => {
    t.mark(move(new m.RequestSlots(region, 1), lease) ? 1 : 0);
  };
  return {
    regions: [region],
    threads: [
      { name: `${name} 0`, run },
      { name: `${name} 1`, run },
    ],
    atEnd(view) {
      const count = view.notes(0)[0]! + view.notes(1)[0]!;
      if (count !== 1) throw new Error(`${count} of two moves succeeded`);
    },
  };
}

export function requestSlotsSearches(m: ShmModules): Search[] {
  return [
    { name: 'an attempt, its recovery and the reuse of its slot', world: () => attemptWorld(m, 2) },
    {
      name: 'two threads settle a queued request',
      world: () =>
        raceWorld(m, 'settler', (slots, lease) => slots.transition(slot, lease, queued, settled)),
    },
    {
      name: 'two threads start the same attempt',
      world: () => raceWorld(m, 'starter', (slots, lease) => slots.startAttempt(slot, lease) > 0),
    },
  ];
}
