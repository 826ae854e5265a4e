/**
 * The fixed-record ring and the byte ring between two threads, with a gauge and with successors.
 *
 * Promises: every record once, in order and whole; never more than the capacity; a producer that dies
 * leaves nothing half done; a consumer that dies leaves the record in its hand to its successor. A
 * failed poll changes only a cached position that is loaded again before it is trusted, which is why
 * a thread may go back to its checkpoint.
 */
import { ResponseRingLayout } from '../../src/shm/byte-ring.ts';
import { i32 } from '../../src/shm/layout.ts';
import type { View, World } from './explorer.ts';
import { type Search, type ShmModules, starts } from './search.ts';
import type { ThreadApi } from './virtual-thread.ts';

interface Pipe {
  readonly region: SharedArrayBuffer;
  readonly tail: number;
  readonly head: number;
  readonly capacity: number;
  readonly records: number;
  producer(): { send(record: number): boolean };
  /** receive: the number of the record found, -1 for none; throws when it is not whole. */
  consumer(): { receive(): number; free(): void };
  /** Looks as a third thread does, through a view of either end. */
  depths(): number[];
}
type MakePipe = () => Pipe;

interface Deaths {
  readonly producer?: boolean;
  readonly consumer?: boolean;
  readonly gauge?: boolean;
}
const producerIndex = 0;
const consumerIndex = 1;
const nextConsumerIndex = 2;

/** The tail after each record, from a ring of its own that one thread fills and empties. */
function tailsOf(make: MakePipe): number[] {
  const pipe = make();
  const words = new Int32Array(pipe.region);
  const tails = [words[pipe.tail]!];
  const producer = pipe.producer();
  const consumer = pipe.consumer();
  for (let record = 0; record < pipe.records; record++) {
    if (!producer.send(record) || consumer.receive() !== record)
      throw new Error(`record ${record}`);
    consumer.free();
    tails.push(words[pipe.tail]!);
  }
  return tails;
}

function pipeWorld(make: MakePipe, deaths: Deaths): World {
  const pipe = make();
  const tails = tailsOf(make);
  const { region, records } = pipe;
  const produce = (t: ThreadApi, first: number): void => {
    const end = pipe.producer();
    for (let record = first; record < records; record++) {
      t.checkpoint();
      if (!end.send(record)) t.retry();
    }
  };
  /** Notes: how many records were seen, whether the last is in hand, the first one. */
  const consume = (t: ThreadApi, isSuccessor: boolean): void => {
    t.checkpoint(0, 0, -1);
    const end = pipe.consumer();
    let first = -1;
    let seen = 0;
    while (seen < records) {
      t.checkpoint(seen, 0, first);
      const record = end.receive();
      if (record < 0) t.retry();
      if (first < 0) {
        first = record;
        t.check(isSuccessor || first === 0, `it begins with record ${first}`);
      } else t.check(record === seen, `record ${seen} comes, not ${record}`);
      seen = record + 1;
      t.checkpoint(seen, 1, first);
      end.free();
    }
    t.checkpoint(seen, 0, first);
  };
  const threads = [
    { name: 'producer', run: (t: ThreadApi) => produce(t, 0), mayCrash: deaths.producer ?? false },
    {
      ...{ name: 'consumer', run: (t: ThreadApi) => consume(t, false) },
      mayCrash: deaths.consumer ?? false,
    },
    {
      name: 'next consumer',
      run(t: ThreadApi) {
        t.checkpoint(0, 0, -1);
        if (!t.isDead(consumerIndex)) t.retry();
        consume(t, true);
      },
    },
    {
      name: 'next producer',
      run(t: ThreadApi) {
        if (!t.isDead(producerIndex)) t.retry();
        produce(t, tails.indexOf(new Int32Array(region)[pipe.tail]!));
      },
    },
    {
      name: 'gauge',
      run(t: ThreadApi) {
        for (const depth of deaths.gauge ? pipe.depths() : []) {
          t.check(depth >= 0 && depth <= pipe.capacity, 'a depth between 0 and the capacity');
        }
      },
    },
  ];
  return {
    regions: [region],
    threads,
    crashes: (deaths.producer ? 1 : 0) + (deaths.consumer ? 1 : 0),
    ended: (view) =>
      view.word(0, pipe.tail) === tails.at(-1) && view.word(0, pipe.head) === tails.at(-1),
    always(view) {
      const count = (view.word(0, pipe.tail) - view.word(0, pipe.head)) | 0;
      if (count < 0 || count > pipe.capacity) throw new Error(`${count} in the ring`);
    },
    atEnd: (view) => judgeEnd(view, records),
  };
}

function judgeEnd(view: View, records: number): void {
  const [seen, inHand] = view.notes(consumerIndex) as [number, number];
  const [reached, , first] = view.notes(nextConsumerIndex) as [number, number, number];
  const isTwice = first === seen - 1 && inHand === 1;
  if (first >= 0 && first !== seen && !isTwice) {
    throw new Error(`the successor begins with ${first} after ${seen}`);
  }
  if (Math.max(seen, reached) !== records) throw new Error('a record is lost');
}

const checkOf = (record: number, field: number): number => record * 10 + field + 1;

function fixedPipe({ spscRing: m }: ShmModules, start: number): Pipe {
  const layout = m.defineSpscLayout('test_ring', 'producer', 'consumer', {
    number: i32('producer', 'Number of the record.'),
    copy: i32('producer', 'A function of the number.'),
  });
  const capacity = 2;
  const region = m.createSpscRing(layout, capacity, start);
  const { at } = layout.place({ cell: capacity });
  return {
    ...{ region, capacity, records: 4, tail: at.tail as number, head: at.head as number },
    producer() {
      const ring = new m.SpscProducer(layout, region, capacity);
      return {
        send(record) {
          const cell = ring.begin();
          if (cell < 0) return false;
          ring.words[cell + ring.at.number] = record;
          ring.words[cell + ring.at.copy] = checkOf(record, 0);
          ring.commit();
          return true;
        },
      };
    },
    consumer() {
      const ring = new m.SpscConsumer(layout, region, capacity);
      return {
        receive() {
          const cell = ring.peek();
          if (cell < 0) return -1;
          const record = ring.words[cell + ring.at.number]!;
          if (ring.words[cell + ring.at.copy] !== checkOf(record, 0))
            throw new Error('torn record');
          return record;
        },
        free: () => ring.advance(),
      };
    },
    depths: () => [
      new m.SpscConsumer(layout, region, capacity).depth(),
      new m.SpscProducer(layout, region, capacity).depth(),
    ],
  };
}

/** Reserved and written bytes of each record. */
type Sizes = readonly (readonly [reserved: number, written: number])[];

function bytePipe({ byteRing: m }: ShmModules, capacity: number, sizes: Sizes, start = 0): Pipe {
  const region = m.createByteRing(capacity, start);
  const { at } = ResponseRingLayout.place({ data: capacity });
  return {
    ...{ region, capacity, records: sizes.length, tail: at.tail, head: at.head },
    producer() {
      const ring = new m.ByteRingProducer(region, capacity);
      return {
        send(record) {
          const [reserved, written] = sizes[record]!;
          const offset = ring.reserve(reserved);
          if (offset < 0) return false;
          if (written > 0) ring.data[offset] = checkOf(record, 0);
          if (written > 1) ring.data[offset + written - 1] = checkOf(record, 1);
          ring.commit(record + 1, record + 100, record + 1000, written);
          return true;
        },
      };
    },
    consumer() {
      const ring = new m.ByteRingConsumer(region, capacity);
      return {
        receive() {
          if (!ring.peek()) return -1;
          const record = ring.kind - 1;
          const written = sizes[record]?.[1];
          const { payload, length, data } = ring;
          if (ring.slot !== record + 100 || ring.lease !== record + 1000 || length !== written) {
            throw new Error('torn head');
          }
          const isWhole =
            (length < 1 || data[payload] === checkOf(record, 0)) &&
            (length < 2 || data[payload + length - 1] === checkOf(record, 1));
          if (!isWhole) throw new Error('torn payload');
          return record;
        },
        free: () => ring.advance(),
      };
    },
    depths: () => [
      new m.ByteRingConsumer(region, capacity).depth(),
      new m.ByteRingProducer(region, capacity).depth(),
    ],
  };
}

const deathCases: readonly (readonly [string, Deaths])[] = [
  ['under a gauge', { gauge: true }],
  ['the producer may die', { producer: true }],
  ['the consumer may die', { consumer: true }],
];

export function spscRingSearches(m: ShmModules): Search[] {
  return [
    ...starts.map((start) => ({
      name: `4 records over 2 cells from ${start}`,
      world: () => pipeWorld(() => fixedPipe(m, start), {}),
    })),
    ...deathCases.map(([name, deaths]) => ({
      name: `4 records over 2 cells, ${name}`,
      world: () => pipeWorld(() => fixedPipe(m, -1), deaths),
    })),
  ];
}

/** In 64 bytes: 16-byte steps; a payload of 16 is half the ring, one of 0 a head alone. */
const mixed: Sizes = [
  [0, 0],
  [16, 16],
  [16, 1],
  [1, 1],
  [16, 0],
  [0, 0],
];
/** Exact fits: each record ends where the ring ends. */
const exact: Sizes = [
  [16, 16],
  [16, 16],
  [16, 15],
  [5, 5],
];
/** In 128 bytes: half-ring records behind a small one, so that padding is as long as it can be. */
const padded: Sizes = [
  [0, 0],
  [48, 48],
  [48, 33],
  [20, 20],
  [48, 48],
];

export function byteRingSearches(m: ShmModules): Search[] {
  const cases: readonly (readonly [string, number, Sizes])[] = [
    ['mixed sizes over 64 bytes', 64, mixed],
    ['exact fits over 64 bytes', 64, exact],
    ['padding over 128 bytes', 128, padded],
  ];
  return cases.flatMap(([name, capacity, sizes]) => [
    ...[0, 2 ** 31 - 32, -32].map((start) => ({
      name: `${name} from ${start}`,
      world: () => pipeWorld(() => bytePipe(m, capacity, sizes, start), {}),
    })),
    ...deathCases.map(([death, deaths]) => ({
      name: `${name}, ${death}`,
      world: () => pipeWorld(() => bytePipe(m, capacity, sizes), deaths),
    })),
  ]);
}
