/** Status lines of answers, each built once. Acceptor threads; never blocks. */
import { STATUS_CODES } from 'node:http';

const lines: string[] = [];

export function statusLine(status: number): string {
  lines[status] ??= `${status} ${STATUS_CODES[status] ?? 'Unknown'}`;
  return lines[status];
}
