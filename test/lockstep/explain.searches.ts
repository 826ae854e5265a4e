/**
 * The explain ring: one scheduler that records decisions, and readers that look while it does.
 *
 * Promises: who reads a record reads all of one decision; a stamp never names two; nobody waits; a reader
 * that dies takes one record with it; a successor of the scheduler goes on behind its predecessor.
 */
import { ExplainLayout, explainCounts } from '../../src/shm/explain.layout.ts';
import type { World } from './explorer.ts';
import type { Search, ShmModules } from './search.ts';
import type { Run, ThreadApi } from './virtual-thread.ts';

/** Two words of a record that say the same: of which decision they are. */
const attemptOf = (tag: number): number => 100 + tag;

function write(
  m: ShmModules,
  region: SharedArrayBuffer,
  records: number,
  tags: number[],
): number[] {
  const writer = new m.explain.ExplainWriter(region, records);
  return tags.map((tag) => {
    const record = writer.begin();
    if (record < 0) return 0;
    writer.words[record + writer.at.idHash] = tag;
    writer.words[record + writer.at.attempt] = attemptOf(tag);
    return writer.commit();
  });
}

/** Whole records only, each under the stamp of its decision. */
function checkRead(t: ThreadApi, found: { stamp: number; attempt: number }[], tag: number): void {
  t.check(found.length <= 1, 'a decision is recorded once');
  for (const { attempt } of found)
    t.check(attempt === attemptOf(tag), 'a record is of one decision');
}

/** `decisions` in a ring of `records`; the first reader asks by hash, the second by stamp. */
function readWorld(
  m: ShmModules,
  records: number,
  decisions: number,
  readers: 1 | 2,
  crashes = 0,
): World {
  const region = m.explain.createExplain(records);
  const writing: Run = (t) => {
    const tags = Array.from({ length: decisions }, (_, i) => i + 1);
    const stamps = write(m, region, records, tags).filter((stamp) => stamp !== 0);
    t.check(new Set(stamps).size === stamps.length, 'a stamp names one decision');
    if (records > readers) t.check(stamps.length === decisions, 'a reader is passed by');
  };
  const finding: Run = (t) => {
    const reader = new m.explain.ExplainReader(region, records);
    checkRead(t, reader.find(decisions, 0), decisions);
  };
  const reading: Run = (t) => {
    const reader = new m.explain.ExplainReader(region, records);
    const found = reader.read(2);
    if (found !== undefined) checkRead(t, [found], 1);
  };
  return {
    regions: [region],
    threads: [
      { name: 'scheduler', run: writing },
      { name: 'finder', run: finding, mayCrash: true },
      { name: 'reader', run: reading, mayCrash: true },
    ].slice(0, 1 + readers),
    crashes,
    atEnd(view) {
      const { base, stride } = ExplainLayout.place(explainCounts(records)).at.record;
      let taken = 0;
      for (let i = 0; i < records; i++) taken += view.word(0, base + i * stride) & 1;
      if (taken > crashes) throw new Error('a record was not given back');
    },
  };
}

/** The scheduler dies at any step; the next one records what follows. */
function successionWorld(m: ShmModules): World {
  const records = 2;
  const region = m.explain.createExplain(records);
  const first: Run = () => {
    write(m, region, records, [1, 2]);
  };
  const second: Run = (t) => {
    t.mark();
    if (!t.isDead(0)) t.retry();
    const [stamp] = write(m, region, records, [3]);
    t.mark(stamp!);
  };
  return {
    regions: [region],
    threads: [
      { name: 'scheduler', run: first, mayCrash: true },
      { name: 'successor', run: second, daemon: true },
    ],
    crashes: 1,
    atEnd(view) {
      if (!view.done(1)) return;
      const { base, stride } = ExplainLayout.place(explainCounts(records)).at.record;
      const stamp = view.notes(1)[0]!;
      for (let i = 0; i < records; i++) {
        const other = view.word(0, base + i * stride);
        if (other > stamp) throw new Error('a successor goes on behind the newest record');
      }
    },
  };
}

export function explainSearches(m: ShmModules): Search[] {
  return [
    { name: 'a record is replaced under two readers', world: () => readWorld(m, 1, 2, 2) },
    { name: 'the ring goes round under two readers', world: () => readWorld(m, 2, 3, 2) },
    { name: 'a reader is passed by', world: () => readWorld(m, 2, 3, 1) },
    { name: 'a reader dies with a record', world: () => readWorld(m, 2, 3, 1, 1) },
    { name: 'a successor continues', world: () => successionWorld(m) },
  ];
}
