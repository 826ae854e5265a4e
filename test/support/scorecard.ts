/**
 * The failover scorecard as a table: one line for each request, and how many of the 16 faults have
 * passed with all of theirs. A line is there from the moment its request is sent, and has not passed
 * until its test says so.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Call } from './traffic.ts';

const faultCount = 16;

interface Line {
  readonly id: string;
  readonly fault: string;
  readonly allowedMs: number;
  outcome: string;
  seenMs: number;
  passed: boolean;
}

/** What the client of a call has seen, in words. */
export function outcomeOf(c: Call): string {
  if (c.end === 'http-error') return `${c.status} ${c.errorCode}`;
  if (!c.isStream) return `${c.status} ${c.end}`;
  const { tokens, errors } = c.ledger;
  const { code = '' } = (errors[0] ?? {}) as { code?: string };
  return [c.status, c.end, `${tokens} tokens`, code].filter((part) => part !== '').join(' ');
}

export class Scorecard {
  readonly #lines: Line[] = [];

  /** Runs the test of one line; what it returns has passed. */
  async score(
    id: string,
    fault: string,
    allowedMs: number,
    run: (seen: (outcome: string, ms: number) => void) => Promise<void>,
  ): Promise<void> {
    const line: Line = { id, fault, allowedMs, outcome: 'none', seenMs: 0, passed: false };
    this.#lines.push(line);
    await run((outcome, ms) => {
      line.outcome = outcome;
      line.seenMs = ms;
    });
    line.passed = true;
  }

  get result(): string {
    const ids = new Set(this.#lines.map(({ id }) => id));
    const failed = new Set(this.#lines.filter(({ passed }) => !passed).map(({ id }) => id));
    return `${ids.size - failed.size} of ${faultCount}`;
  }

  get table(): string {
    const byId = this.#lines.toSorted((a, b) => a.id.localeCompare(b.id));
    const cells = byId.map(({ id, fault, outcome, seenMs, allowedMs, passed }) => [
      ...[id, fault, outcome, `${seenMs.toFixed(0)} / ${allowedMs} ms`, passed ? 'pass' : 'FAIL'],
    ]);
    const head = ['id', 'fault', 'outcome seen', 'clock seen / allowed', 'pass'];
    const rows = [head, head.map(() => '---'), ...cells];
    return rows.map((row) => `| ${row.join(' | ')} |\n`).join('');
  }

  /** Prints it, and leaves it as `file`. */
  publish(title: string, file: string): void {
    const text = `${title}\n\n${this.table}\n${this.result}\n`;
    process.stdout.write(text);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
