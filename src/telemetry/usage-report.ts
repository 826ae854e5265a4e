/** Usage files summed up. Reads by the line; memory is one entry per group, and two million ids. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fromBillionths, inBillionths } from '../lib/price.ts';
import { textTable } from '../lib/text-table.ts';
import { RecentIds } from './recent-ids.ts';
import { parseUsageEvent, type UsageEvent } from './usage-event.ts';

interface Sums {
  requests: number;
  errors: number;
  client_gone: number;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
  /** Events whose tokens nobody has counted. */
  uncounted: number;
  /** Events of which some tokens are estimated. */
  estimated: number;
  /** By the prices of their time; 0 for models without one. */
  cost: number;
}

export interface UsageRow extends Sums {
  /** Values of what the row is of, in that order. */
  readonly group: readonly string[];
}

export interface UsageReport {
  readonly by: readonly string[];
  readonly rows: readonly UsageRow[];
  readonly total: Sums;
  readonly duplicates: number;
  readonly unreadable: number;
}

/** A line that is there twice follows soon after: so many events back and no more. */
const recentMax = 1_000_000;

const empty = (): Sums => ({
  ...{ requests: 0, errors: 0, client_gone: 0, input_tokens: 0, cached_tokens: 0 },
  ...{ output_tokens: 0, uncounted: 0, estimated: 0, cost: 0 },
});

/** Rejects where a file cannot be read. `since` included, `until` not; milliseconds. */
export async function readUsage(
  files: readonly string[],
  by: readonly string[],
  since: number,
  until: number,
): Promise<UsageReport> {
  const rows = new Map<string, UsageRow>();
  const total = empty();
  const seen = new RecentIds(recentMax);
  let [duplicates, unreadable] = [0, 0];
  for (const file of files) {
    const input = createReadStream(file);
    const failed = new Promise<never>((_, reject) => input.once('error', reject));
    const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
    const read = async (): Promise<void> => {
      for await (const line of lines) {
        if (line === '') continue; // a line that was cut by a full device is closed by one
        const event = parseUsageEvent(line);
        const ms = event === undefined ? 0 : Date.parse(event.time);
        if (event === undefined) unreadable++;
        else if (ms < since || ms >= until) continue;
        else if (!seen.add(event.id)) duplicates++;
        else {
          const group = by.map((name) => groupValue(event, name));
          const key = JSON.stringify(group);
          const row = rows.get(key) ?? { group, ...empty() };
          rows.set(key, row);
          add(row, event);
          add(total, event);
        }
      }
    };
    await Promise.race([read(), failed]);
  }
  const sorted = [...rows.values()].sort((a, b) => b.output_tokens - a.output_tokens);
  return { by, rows: sorted, total, duplicates, unreadable };
}

function groupValue(event: UsageEvent, name: string): string {
  const value = name === 'day' ? event.time.slice(0, 10) : event[name];
  return typeof value === 'string' ? value : '-';
}

function add(sums: Sums, event: UsageEvent): void {
  sums.requests++;
  if (event.outcome === 'error') sums.errors++;
  if (event.outcome === 'client_gone') sums.client_gone++;
  if (event.output_tokens === null) sums.uncounted++;
  if (event.estimated === true) sums.estimated++;
  sums.input_tokens += event.input_tokens ?? 0;
  sums.cached_tokens += event.cached_tokens ?? 0;
  sums.output_tokens += event.output_tokens ?? 0;
  // Whole billionths: a sum of binary fractions would depend on their order.
  sums.cost = fromBillionths(inBillionths(sums.cost) + inBillionths(event.cost ?? 0));
}

const columns = [
  'requests',
  'errors',
  'client_gone',
  'input_tokens',
  'cached_tokens',
  'output_tokens',
  'uncounted',
  'estimated',
  'cost',
] as const;

/** A table for a terminal: groups to the left, numbers to the right, the sum below. */
export function usageTable({ by, rows, total }: UsageReport): string {
  const number = (value: number): string =>
    value.toLocaleString('en-US', { maximumFractionDigits: 6 });
  const lines = [
    [...by, ...columns],
    ...rows.map((row) => [...row.group, ...columns.map((name) => number(row[name]))]),
    [...by.map((_, i) => (i === 0 ? 'all' : '')), ...columns.map((name) => number(total[name]))],
  ];
  return textTable(lines, (column) => column >= by.length);
}
