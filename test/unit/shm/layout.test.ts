import { expect, test } from 'vitest';
import { ArenaLayout } from '../../../src/shm/arena.layout.ts';
import { ResponseRingLayout } from '../../../src/shm/byte-ring.ts';
import { ControlLayout } from '../../../src/shm/control.layout.ts';
import {
  bytes,
  cells,
  column,
  defineLayout,
  f64,
  i32,
  lineBytes,
  type RegionSpec,
  rows,
  word,
} from '../../../src/shm/layout.ts';
import { AskRingLayout, LeasesLayout } from '../../../src/shm/leases.layout.ts';
import { LimitsLayout } from '../../../src/shm/limits.layout.ts';
import { MetricsLayout } from '../../../src/shm/metrics.layout.ts';
import { ReplicaTableLayout } from '../../../src/shm/replica-table.layout.ts';
import { RequestRingLayout } from '../../../src/shm/request-ring.layout.ts';
import { RequestSlotsLayout } from '../../../src/shm/request-slots.layout.ts';
import {
  DispatchRingLayout,
  EventRingLayout,
  ReplyRingLayout,
} from '../../../src/shm/rings.layout.ts';

const sample = defineLayout('sample', {
  one: word('a', 'A word.'),
  many: column('a', 'A column.'),
  rows: rows({
    first: i32('a', 'First writer.'),
    again: i32('a', 'Same writer, same line.'),
    other: i32('b', 'Another writer, another line.'),
    wide: f64('b', 'On an even word.'),
    list: i32('b', 'Three of them.', 3),
    last: i32('b', 'Behind the list.'),
  }),
  packed: cells({ x: i32('a', 'x.'), y: i32('b', 'y.') }),
  raw: bytes('a', 'Bytes.'),
});
const counts = { many: 33, rows: 2, packed: 5, raw: 130 };

test('offsets follow the rules of the header', () => {
  const { at, bytes: size } = sample.place(counts);
  expect(at).toEqual({
    one: 32, // line 0 is the stamp
    many: 64,
    rows: {
      base: 128, // 33 words fill two lines
      stride: 64,
      at: { first: 0, again: 1, other: 32, wide: 34, list: 36, last: 39 },
    },
    packed: { base: 256, stride: 2, at: { x: 0, y: 1 } },
    raw: 288 * 4,
  });
  expect(size).toBe((288 + 64) * 4);
});

test('a region attaches to what created it', () => {
  const region = sample.create(counts);
  expect(sample.attach(region, counts).at).toEqual(sample.place(counts).at);
  expect(new Int32Array(region).subarray(32).every((value) => value === 0)).toBe(true);
});

test('a region that another layout, version, size or count made is refused', () => {
  const region = sample.create(counts);
  const renamed = defineLayout('sample', { ...sample.spec, extra: word('a', 'One more.') });
  const otherWriter = defineLayout('sample', {
    ...sample.spec,
    one: word('a', 'x'),
    many: word('a', 'x'),
  });
  expect(() => renamed.attach(region, counts)).toThrow('other layout or other counts');
  expect(() => otherWriter.attach(region, counts as never)).toThrow('other layout or other counts');
  expect(() => sample.attach(region, { ...counts, many: 34 })).toThrow('other counts');
  expect(() => sample.attach(new SharedArrayBuffer(region.byteLength), counts)).toThrow(
    'not a Sluice region',
  );
  const aged = sample.create(counts);
  new Int32Array(aged)[1]! += 1;
  expect(() => sample.attach(aged, counts)).toThrow('layout version');
  const stretched = new SharedArrayBuffer(region.byteLength + lineBytes);
  new Int32Array(stretched).set(new Int32Array(region));
  expect(() => sample.attach(stretched, counts)).toThrow('wrong size');
});

test('a layout without a count, or with a float in a packed cell, is refused', () => {
  expect(() => sample.place({ ...counts, many: 0 })).toThrow('many: count missing');
  expect(() => sample.place({ ...counts, rows: 1.5 })).toThrow('rows: count missing');
  const floats = defineLayout('floats', { cell: cells({ x: f64('a', 'No.') }) });
  expect(() => floats.place({ cell: 1 })).toThrow('cells hold int32 only');
});

const layouts: readonly { name: string; spec: RegionSpec; place(counts: never): unknown }[] = [
  ControlLayout,
  RequestSlotsLayout,
  ArenaLayout,
  ReplicaTableLayout,
  LimitsLayout,
  LeasesLayout,
  AskRingLayout,
  RequestRingLayout,
  DispatchRingLayout,
  EventRingLayout,
  ReplyRingLayout,
  ResponseRingLayout,
  MetricsLayout,
];

test.each(layouts)(
  '$name: parts start on lines, writers share none, nothing overlaps',
  (layout) => {
    const size = 3;
    const all = Object.fromEntries(Object.keys(layout.spec).map((key) => [key, size]));
    const { at } = layout.place(all as never) as { at: Record<string, never> };
    const lineWriter = new Map<number, string>();
    const taken = new Set<number>();
    const take = (first: number, words: number, writer: string, isShared: boolean): void => {
      for (let w = first; w < first + words; w++) {
        expect(taken.has(w), `word ${w} twice`).toBe(false);
        taken.add(w);
        const line = Math.floor(w / (lineBytes / 4));
        expect(line).toBeGreaterThan(0);
        if (!isShared) expect(lineWriter.get(line) ?? writer).toBe(writer);
        lineWriter.set(line, writer);
      }
    };
    for (const [key, part] of Object.entries(layout.spec)) {
      const place: unknown = at[key];
      if (part.kind === 'rows' || part.kind === 'cells') {
        const {
          base,
          stride,
          at: fields,
        } = place as {
          base: number;
          stride: number;
          at: Record<string, number>;
        };
        expect((base * 4) % lineBytes).toBe(0);
        if (part.kind === 'rows') expect((stride * 4) % lineBytes).toBe(0);
        for (let row = 0; row < size; row++) {
          for (const [name, field] of Object.entries(part.fields)) {
            const words = (field.type === 'f64' ? 2 : 1) * field.length;
            const first = base + row * stride + fields[name]!;
            if (field.type === 'f64') expect(first % 2).toBe(0);
            take(first, words, field.writer, part.kind === 'cells');
          }
        }
        continue;
      }
      const first = part.kind === 'bytes' ? (place as number) / 4 : (place as number);
      expect((first * 4) % lineBytes).toBe(0);
      take(first, part.kind === 'column' ? size : 1, part.writer, false);
    }
  },
);
