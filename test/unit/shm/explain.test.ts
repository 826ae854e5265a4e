import { describe, expect, test } from 'vitest';
import {
  ExplainLayout,
  explainCandidatesMax,
  explainCounts,
} from '../../../src/shm/explain.layout.ts';
import { createExplain, ExplainReader, ExplainWriter } from '../../../src/shm/explain.ts';

const records = 4;

function ring(): {
  region: SharedArrayBuffer;
  writer: ExplainWriter;
  reader: ExplainReader;
  record(id: number, candidates?: number): number;
} {
  const region = createExplain(records);
  const writer = new ExplainWriter(region, records);
  const reader = new ExplainReader(region, records);
  const record = (id: number, candidates = 0): number => {
    const at = writer.begin();
    if (at < 0) return 0;
    writer.words[at + writer.at.idHash] = id;
    writer.words[at + writer.at.idHash + 1] = -id;
    writer.words[at + writer.at.attempt] = id;
    writer.words[at + writer.at.candidates] = candidates;
    for (let i = 0; i < Math.min(candidates, explainCandidatesMax); i++) {
      const cell = writer.firstCandidate + i * writer.candidateWords;
      writer.words[cell + writer.candidateAt.row] = 100 * id + i;
    }
    return writer.commit();
  };
  return { region, writer, reader, record };
}

/** Makes the record at `index` look like one that a dead thread has taken. */
function take(region: SharedArrayBuffer, index: number): void {
  const { base, stride } = ExplainLayout.place(explainCounts(records)).at.record;
  const words = new Int32Array(region);
  const at = base + index * stride;
  words[at] = words[at]! - 1;
}

test('a record is found by its stamp and by the hash of its request', () => {
  const { reader, record } = ring();
  const stamp = record(7, 2);
  const found = reader.read(stamp);
  expect(found).toMatchObject({ stamp, attempt: 7, candidates: 2 });
  expect(found?.listed.map(({ row }) => row)).toEqual([700, 701]);
  expect(reader.find(7, -7)).toEqual([found]);
  expect(reader.find(7, 7)).toEqual([]);
});

test('nothing is found in a ring that nobody has written', () => {
  const { reader } = ring();
  expect(reader.find(0, 0)).toEqual([]);
  expect(reader.read(0)).toBeUndefined();
  expect(reader.read(2)).toBeUndefined();
});

test('candidates of neighbouring records do not overlap, however many there were', () => {
  const { reader, record } = ring();
  const many = explainCandidatesMax + 10;
  const stamps = [1, 2, 3, 4].map((id) => record(id, many));
  for (const [i, stamp] of stamps.entries()) {
    const found = reader.read(stamp);
    expect(found?.candidates).toBe(many);
    const first = 100 * (i + 1);
    const rows = Array.from({ length: explainCandidatesMax }, (_, k) => first + k);
    expect(found?.listed.map(({ row }) => row)).toEqual(rows);
  }
});

test('the oldest record is replaced, and its stamp then names nothing', () => {
  const { reader, record } = ring();
  const stamps = [1, 2, 3, 4, 5].map((id) => record(id));
  expect(new Set(stamps).size).toBe(5);
  expect(reader.read(stamps[0]!)).toBeUndefined();
  expect(reader.find(1, -1)).toEqual([]);
  expect(stamps.slice(1).map((stamp) => reader.read(stamp)?.attempt)).toEqual([2, 3, 4, 5]);
});

test('several attempts of a request come newest first', () => {
  const { reader, record } = ring();
  for (const id of [9, 1, 9, 2, 9]) record(id);
  const stamps = reader.find(9, -9).map(({ stamp }) => stamp);
  expect(stamps).toEqual([...stamps].sort((a, b) => b - a));
  expect(stamps).toHaveLength(2); // the first of them has been replaced
});

describe('a record that somebody has', () => {
  test('is not read', () => {
    const { region, reader, record } = ring();
    const stamp = record(1);
    take(region, 0);
    expect(reader.read(stamp)).toBeUndefined();
    expect(reader.find(1, -1)).toEqual([]);
  });

  test('is not read while it is written, neither as the old one nor as the new one', () => {
    const { writer, reader, record } = ring();
    const stamps = [1, 2, 3, 4].map((id) => record(id));
    const at = writer.begin();
    writer.words[at + writer.at.idHash] = 5;
    expect(reader.read(stamps[0]!)).toBeUndefined();
    expect(reader.find(1, -1)).toEqual([]);
    expect(reader.find(5, -1)).toEqual([]);
    const stamp = writer.commit();
    expect(reader.find(5, -1).map((found) => found.stamp)).toEqual([stamp]);
  });

  test('is passed by: the next one is written', () => {
    const { region, reader, record } = ring();
    for (const id of [1, 2, 3, 4]) record(id);
    take(region, 0);
    const stamp = record(5);
    expect(reader.read(stamp)?.attempt).toBe(5);
    expect(reader.find(2, -2)).toEqual([]);
    expect(reader.find(3, -3)).toHaveLength(1);
  });

  test('all of them: the decision goes unrecorded', () => {
    const { region, record } = ring();
    for (const id of [1, 2, 3, 4]) record(id);
    for (let index = 0; index < records; index++) take(region, index);
    expect(record(5)).toBe(0);
  });
});

test('a successor of the writer goes on behind the newest record, also behind one begun', () => {
  const { region, writer, reader, record } = ring();
  const stamps = [1, 2, 3, 4, 5, 6].map((id) => record(id));
  writer.begin();
  const next = new ExplainWriter(region, records);
  next.begin();
  const stamp = next.commit();
  expect(stamp).toBeGreaterThan(stamps.at(-1)!);
  expect(reader.read(stamp)).toBeDefined();
});

test('positions wrap: stamps change their sign and go on', () => {
  const { region, reader } = ring();
  const words = new Int32Array(region);
  const { base, stride } = ExplainLayout.place(explainCounts(records)).at.record;
  // The last positions whose stamps are positive.
  for (let index = 0; index < records; index++) {
    words[base + index * stride] = 2 * (2 ** 30 - 2 * records + index) + 2;
  }
  const writer = new ExplainWriter(region, records);
  const stamps = Array.from({ length: 2 * records }, (_, i) => {
    const at = writer.begin();
    writer.words[at + writer.at.idHash] = 1;
    writer.words[at + writer.at.idHash + 1] = 1;
    writer.words[at + writer.at.attempt] = i;
    return writer.commit();
  });
  expect(stamps[0]).toBeGreaterThan(0);
  expect(stamps.at(-1)).toBeLessThan(0);
  expect(reader.find(1, 1).map(({ attempt }) => attempt)).toEqual([7, 6, 5, 4]);
  const next = new ExplainWriter(region, records);
  next.begin();
  expect(next.commit()).toBe(stamps.at(-1)! + 2);
});
