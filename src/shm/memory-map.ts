/**
 * Renders docs/memory-map.md from the layouts: every region, its words, their writers and meaning, and
 * the state table of a slot. Runs in scripts/docs.ts only; a test compares the page.
 */
import { defaultMetricDims } from '../telemetry/labels.ts';
import { ArenaLayout } from './arena.layout.ts';
import { ResponseRingLayout, SpanRingLayout } from './byte-ring.ts';
import { ControlLayout } from './control.layout.ts';
import { ExplainLayout, explainCounts, explainRecords } from './explain.layout.ts';
import { type Layout, lineBytes, type RegionSpec } from './layout.ts';
import { AskRingLayout, LeasesLayout } from './leases.layout.ts';
import { LedgerLayout } from './ledger.layout.ts';
import { ledgerCounts } from './ledger.ts';
import { LimitsLayout } from './limits.layout.ts';
import {
  askRingCapacity,
  controlCounts,
  limitCounts,
  type MemorySize,
  recordRingCapacity,
  replicaCounts,
  requestRingSize,
  responsesOf,
  spanRingBytes,
} from './memory.ts';
import { MetricsLayout, placeMetricCells } from './metrics.layout.ts';
import { ReplicaTableLayout } from './replica-table.layout.ts';
import { RequestRingLayout } from './request-ring.layout.ts';
import {
  attemptBits,
  RequestSlotsLayout,
  SlotState,
  slotStates,
  stateBits,
} from './request-slots.layout.ts';
import { DispatchRingLayout, EventRingLayout, ReplyRingLayout } from './rings.layout.ts';
import { StoredResponsesLayout } from './stored-responses.layout.ts';
import { responseCounts } from './stored-responses.ts';

/** The memory of the default config. */
const size: MemorySize = {
  acceptors: 1,
  forwarders: 1,
  slots: 8192,
  arenaBytes: 256 * 1024 * 1024,
  responseRingBytes: 4 * 1024 * 1024,
};

interface Region {
  readonly layout: Layout<RegionSpec>;
  readonly counts: Record<string, number>;
  readonly what: string;
  /** How many there are: in words, and in the default memory. */
  readonly each: string;
  readonly copies: number;
}

function region<S extends RegionSpec>(
  layout: Layout<S>,
  counts: Parameters<Layout<S>['create']>[0],
  what: string,
  each = 'one',
  copies = 1,
): Region {
  return { layout: layout as unknown as Layout<RegionSpec>, counts, what, each, copies };
}

function regions(): Region[] {
  const records = { cell: recordRingCapacity(size) };
  const ring = requestRingSize(size);
  const cells = placeMetricCells(defaultMetricDims).total * 8;
  const threads = controlCounts(size).thread;
  const { acceptors: a, forwarders: f } = size;
  return [
    region(ControlLayout, controlCounts(size), 'Doorbells, heartbeats, drain.'),
    region(RequestSlotsLayout, { slot: size.slots }, 'The requests in flight.'),
    region(ArenaLayout, { data: size.arenaBytes }, 'Request bodies and header blobs.'),
    region(ReplicaTableLayout, replicaCounts, 'The replicas and what they hold.'),
    region(LimitsLayout, limitCounts, 'What tenants may use, and what they have used.'),
    region(
      LeasesLayout,
      limitCounts,
      'What is leased of limits that gateways share.',
      'one with `limits.store: redis`',
      0,
    ),
    region(LedgerLayout, ledgerCounts, 'How far sinks are, and what tenants have spent.'),
    region(
      StoredResponsesLayout,
      responseCounts(responsesOf(size)),
      'Which replica keeps which response.',
    ),
    region(
      ExplainLayout,
      explainCounts(explainRecords),
      'Why the newest requests went where they went.',
    ),
    region(
      RequestRingLayout,
      { intent: ring.producers, cell: ring.capacity },
      'Acceptors to scheduler.',
    ),
    region(DispatchRingLayout, records, 'Scheduler to forwarder.', 'one a forwarder', f),
    region(EventRingLayout, records, 'Forwarder to scheduler.', 'one a forwarder', f),
    region(ReplyRingLayout, records, 'Scheduler to acceptor.', 'one an acceptor', a),
    region(
      AskRingLayout,
      { cell: askRingCapacity },
      'Scheduler to limiter.',
      'one with `limits.store: redis`',
      0,
    ),
    region(
      ResponseRingLayout,
      { data: size.responseRingBytes },
      'Answers.',
      'one from each forwarder to each acceptor',
      a * f,
    ),
    region(
      SpanRingLayout,
      { data: spanRingBytes },
      'What spans are made of.',
      'with `tracing`, one from each acceptor and forwarder',
      0,
    ),
    region(MetricsLayout, { cells }, 'Counters and histograms.', 'one a thread', threads),
  ];
}

/** The page. */
export function memoryMapMarkdown(): string {
  const all = regions();
  const bytesOf = ({ layout, counts }: Region): number => layout.place(counts as never).bytes;
  const total = all.reduce((sum, each) => sum + bytesOf(each) * each.copies, 0);
  return `${[
    '# Memory map',
    '',
    'Generated from the layouts in `src/shm` by `npm run docs`. Sizes are those of the default config:',
    `${size.slots} slots, ${bytesText(size.arenaBytes)} of arena, ${size.acceptors} acceptor,`,
    `${size.forwarders} forwarder. The kernel gives a page when it is first touched, so what is`,
    'resident is what is in use.',
    '',
    `A region is one SharedArrayBuffer. Line 0, ${lineBytes} bytes, is its stamp: magic, layout version,`,
    'hash of names, writers and counts; a thread that disagrees fails when it attaches. Every word,',
    'column, row and bytes area starts on a line; in a row a field whose writer is another than that',
    'of the field before it starts a line too, so threads that write different fields share none.',
    'Cells are packed: their owner follows the sequence or the positions of the ring.',
    '',
    '| region | how many | bytes each | what |',
    '|---|---|---|---|',
    ...all.map((each) => {
      const { name } = each.layout;
      return `| [${name}](#${name}) | ${each.each} | ${bytesText(bytesOf(each))} | ${each.what} |`;
    }),
    `| all | | ${bytesText(total)} | |`,
    ...all.flatMap(regionLines),
    '',
    ...slotLines(),
  ].join('\n')}\n`;
}

function regionLines({ layout, counts, what }: Region): string[] {
  const { at } = layout.place(counts as never) as { at: Record<string, unknown> };
  const lines: string[] = [];
  for (const [key, part] of Object.entries(layout.spec)) {
    if (part.kind === 'word') {
      lines.push(row(`${at[key]}`, key, part.writer, part.meaning));
    } else if (part.kind === 'column') {
      lines.push(row(`${at[key]} + i`, `${key}[${counts[key]}]`, part.writer, part.meaning));
    } else if (part.kind === 'bytes') {
      const words = (at[key] as number) / 4;
      lines.push(row(`${words}`, `${key}: ${counts[key]} bytes`, part.writer, part.meaning));
    } else {
      const {
        base,
        stride,
        at: fields,
      } = at[key] as {
        base: number;
        stride: number;
        at: Record<string, number>;
      };
      for (const [name, field] of Object.entries(part.fields)) {
        const many = field.length > 1 ? `[${field.length}]` : '';
        const type = field.type === 'f64' ? ' f64' : '';
        const offset = `${base + fields[name]!} + ${stride} i`;
        const label = `${key}[${counts[key]}].${name}${many}${type}`;
        lines.push(row(offset, label, field.writer, field.meaning));
      }
    }
  }
  return [
    '',
    `## ${layout.name}`,
    '',
    what,
    '',
    '| word | name | writer | meaning |',
    '|---|---|---|---|',
    ...lines,
  ];
}

const row = (offset: string, name: string, writer: string, meaning: string): string =>
  `| ${offset} | \`${name}\` | ${writer} | ${meaning.replaceAll('|', '\\|')} |`;

function slotLines(): string[] {
  const names = Object.keys(SlotState);
  const generationBits = 32 - attemptBits - stateBits;
  return [
    '## States of a slot',
    '',
    `The stamp is generation (${generationBits} bits), attempt (${attemptBits} bits) and state (${stateBits} bits). Only the owner of a`,
    'state writes the stamp in it. The scheduler inherits the states of a forwarder that has died.',
    '',
    '| # | state | owner | next | meaning |',
    '|---|---|---|---|---|',
    ...Object.entries(slotStates).map(([name, rule]) => {
      const next = rule.next.map((state) => names[state]).join(', ');
      const number = SlotState[name as keyof typeof SlotState];
      return `| ${number} | ${name} | ${rule.owner} | ${next} | ${rule.meaning} |`;
    }),
  ];
}

function bytesText(bytes: number): string {
  if (bytes >= 1024 * 1024) return `${Number((bytes / 1024 / 1024).toFixed(2))} MiB`;
  return `${Number((bytes / 1024).toFixed(2))} KiB`;
}
