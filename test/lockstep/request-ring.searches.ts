/**
 * The request ring: producers, consumer, gauge, repair, and a successor of the consumer.
 *
 * Promises: nothing lost, nothing twice, the order of each producer, every message whole, at most
 * `capacity` in the ring, no state without a way out; with crashes as the header of the source says.
 */
import { RequestKind, RequestRingLayout } from '../../src/shm/request-ring.layout.ts';
import type { ThreadSpec, View, World } from './explorer.ts';
import { bitCount, type Search, type ShmModules, starts } from './search.ts';
import type { Run } from './virtual-thread.ts';

export interface RingCase {
  readonly producers: number;
  readonly messages: number;
  readonly start?: number;
  readonly capacity?: number;
  /** A full ring is a refusal; otherwise the producer comes back. */
  readonly givesUp?: boolean;
  readonly producersCrash?: number;
  readonly consumerCrashes?: boolean;
  /** Nobody repairs what a dead producer left. */
  readonly noRepair?: boolean;
  readonly gauge?: boolean;
}

const kindOf = (producer: number, i: number) =>
  (producer + i) % 2 === 0 ? RequestKind.arrive : RequestKind.cancel;
const leaseOf = (producer: number, i: number): number => 1000 + producer * 100 + i * 7;

export function ringWorld({ requestRing: m }: ShmModules, ring: RingCase): World {
  const { producers, messages, capacity = 2, start = 0 } = ring;
  const size = { capacity, producers };
  const region = m.createRequestRing(size, start);
  const { at } = RequestRingLayout.place({ intent: producers, cell: capacity });
  const crashing = (ring.producersCrash ?? 0) > 0;

  const producer =
    (index: number): Run =>
    (t) => {
      const end = new m.RequestRingProducer(region, size, index);
      let accepted = 0;
      for (let i = 0; i < messages; i++) {
        t.mark(i, accepted);
        const isAccepted = end.push(kindOf(index, i), index * 8 + i, leaseOf(index, i));
        if (!isAccepted && !ring.givesUp) t.retry();
        if (isAccepted) accepted |= 1 << i;
      }
      t.mark(messages, accepted);
    };

  /** Notes: position, whether a message is in hand, what was received of each producer. */
  const consume: Run = (t) => {
    const words = new Int32Array(region);
    const end = new m.RequestRingConsumer(region, size);
    const received = new Array<number>(producers).fill(0);
    for (;;) {
      t.mark(words[at.head]!, 0, ...received);
      if (!crashing && !ring.consumerCrashes && !ring.givesUp) {
        if (received.every((mask) => mask === (1 << messages) - 1)) return;
      }
      if (!end.peek()) continue; // it may have skipped tombstones: no way back to the mark
      const from = end.slot >> 3;
      const i = end.slot & 7;
      t.check(from < producers && i < messages, 'a slot that was written');
      t.check(end.lease === leaseOf(from, i) && end.kind === kindOf(from, i), 'a whole message');
      t.check(received[from]! >> i === 0, 'in order of its producer, and once');
      received[from]! |= 1 << i;
      t.mark(words[at.head]!, 1, ...received);
      end.advance();
    }
  };
  const successor: Run = (t) => {
    t.mark(start, 2, ...new Array<number>(producers).fill(0));
    if (!t.isDead(producers)) t.retry();
    consume(t);
  };
  const repair: Run = (t) => {
    const end = new m.RequestRingRepair(region, size);
    let repaired = 0;
    for (;;) {
      t.mark(repaired);
      let dead = 0;
      while (dead < producers && ((repaired >> dead) & 1 || !t.isDead(dead))) dead++;
      if (dead === producers) t.retry();
      if (end.tombstone(dead, (other) => !t.isDead(other)) === m.Tombstone.askAgain) t.retry();
      repaired |= 1 << dead;
    }
  };
  const gauge: Run = (t) => {
    const end = new m.RequestRingRepair(region, size);
    const depth = end.depth();
    t.check(depth >= 0 && depth <= capacity, 'a depth between 0 and the capacity');
  };

  const threads: ThreadSpec[] = [];
  for (let p = 0; p < producers; p++) {
    const loopsAt = { region: 0, index: at.tail };
    threads.push({ name: `producer ${p}`, run: producer(p), mayCrash: crashing, loopsAt });
  }
  const mayCrash = ring.consumerCrashes ?? false;
  threads.push({ name: 'consumer', run: consume, mayCrash, daemon: true });
  if (mayCrash) threads.push({ name: 'successor', run: successor, daemon: true });
  if (crashing && !ring.noRepair) threads.push({ name: 'repair', run: repair, daemon: true });
  if (ring.gauge) threads.push({ name: 'gauge', run: gauge });

  const occupied = (view: View): number => (view.word(0, at.tail) - view.word(0, at.head)) | 0;
  const repairThread = threads.findIndex(({ name }) => name === 'repair');
  const isRepaired = (view: View): boolean =>
    threads.every(
      ({ name }, i) =>
        !name.startsWith('producer') ||
        !view.dead(i) ||
        repairThread < 0 ||
        ((view.notes(repairThread)[0]! >> i) & 1) === 1,
    );
  return {
    regions: [region],
    threads,
    crashes: (ring.producersCrash ?? 0) + (mayCrash ? 1 : 0),
    ended: (view) =>
      occupied(view) === 0 &&
      threads.every(({ daemon }, i) => daemon || view.done(i) || view.dead(i)) &&
      isRepaired(view) &&
      view.notes(mayCrash && view.dead(producers) ? producers + 1 : producers)[0] ===
        view.word(0, at.head),
    always(view) {
      const count = occupied(view);
      if (count < 0 || count > capacity) throw new Error(`${count} messages in the ring`);
    },
    atEnd: (view) => judgeEnd(view, producers, messages, mayCrash),
  };
}

/** What was received is what was accepted; of a dead producer one more may have been published. */
function judgeEnd(view: View, producers: number, messages: number, hasSuccessor: boolean): void {
  const first = view.notes(producers).slice(2);
  const second = hasSuccessor ? view.notes(producers + 1).slice(2) : first.map(() => 0);
  let twice = 0;
  for (let p = 0; p < producers; p++) {
    const [reached, accepted] = view.notes(p) as [number, number];
    const received = first[p]! | second[p]!;
    const last = view.dead(p) && reached < messages ? 1 << reached : 0;
    if ((accepted & ~received) !== 0) throw new Error(`producer ${p}: an accepted message is lost`);
    if ((received & ~(accepted | last)) !== 0) throw new Error(`producer ${p}: from nowhere`);
    const both = first[p]! & second[p]!;
    twice += bitCount(both);
    if (both !== 0 && first[p]! >> 1 >= both) throw new Error('twice, and not the one in hand');
  }
  if (twice > 1) throw new Error(`${twice} messages twice`);
  if (twice === 1 && view.notes(producers)[1] !== 1) throw new Error('twice, and none was in hand');
}

export function requestRingSearches(m: ShmModules): Search[] {
  const search = (name: string, ring: RingCase, isLarge = false): Search => ({
    name,
    isLarge,
    world: () => ringWorld(m, ring),
  });
  return [
    ...starts.map((start) =>
      search(`2 producers x 2 from ${start}`, { producers: 2, messages: 2, start }),
    ),
    search('1 x 3 under a gauge', { producers: 1, messages: 3, gauge: true }),
    search('2 x 2, refused when full', { producers: 2, messages: 2, givesUp: true }),
    search('2 x 2, a producer may die', { producers: 2, messages: 2, producersCrash: 1 }),
    search('2 x 2, both may die', { producers: 2, messages: 2, producersCrash: 2, start: -1 }),
    search('2 x 2, refused when full, a producer may die', {
      producers: 2,
      messages: 2,
      producersCrash: 1,
      givesUp: true,
    }),
    search('2 x 2, the consumer may die', { producers: 2, messages: 2, consumerCrashes: true }),
    search(
      '2 x 2, a producer and the consumer may die',
      { producers: 2, messages: 2, producersCrash: 1, consumerCrashes: true },
      true,
    ),
    ...starts.map((start) =>
      search(`2 producers x 3 from ${start}`, { producers: 2, messages: 3, start }, true),
    ),
    ...starts.map((start) =>
      search(`3 producers x 2 from ${start}`, { producers: 3, messages: 2, start }, true),
    ),
    search('3 x 1, two may die', { producers: 3, messages: 1, producersCrash: 2 }, true),
    search('2 x 3 over 4 cells', { producers: 2, messages: 3, capacity: 4 }, true),
  ];
}
