/** The outcomes of the battery as a table for a terminal and as docs/reliability.md. Pure. */
import { holds, type RowOutcome } from './outcomes.ts';

const verdict = (row: RowOutcome): string => {
  if (holds(row)) return 'holds';
  return row.failed > 0 ? 'FAILED' : 'not shown';
};

const testsOf = ({ passed, failed }: RowOutcome): string =>
  failed === 0 ? `${passed}` : `${passed} of ${passed + failed}`;

export function terminalTable(rows: readonly RowOutcome[]): string {
  const lines = rows.map((row) => {
    const figures = row.figures.length === 0 ? '' : `  ${row.figures.join('; ')}`;
    const counts = `${testsOf(row)} tests`.padStart(9);
    return `${row.id}  ${verdict(row).padEnd(9)} ${counts}  ${row.injection}${figures}`;
  });
  return `${lines.join('\n')}\n`;
}

/** `scorecard` is the table of test/fault/scorecard.test.ts; '' when it was not run. */
export function reliabilityPage(
  rows: readonly RowOutcome[],
  machine: string,
  scorecard: string,
): string {
  const table = rows.map((row) => {
    const cells = [
      row.id,
      row.injection,
      row.expected,
      row.shownAs,
      row.figures.join('; '),
      testsOf(row),
      row.invariants.join(' '),
      verdict(row),
    ];
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return `# Reliability: what is done to it, and what comes of it

Written by \`npm run test:fault -- --write\`; do not edit. Each row is one or more tests, run against real
gateway processes and simulated replicas over real sockets. *Must* is the battery's own demand; where the tests do less, *shown with
less* says what they do. Times are of the machine below, which others use as well.

${machine}

## Invariants

Asked of every gateway that a test leaves running, whatever was done to it (\`test/support/invariants.ts\`); a row whose cell is empty
has tests of parts, or of gateways that are gone when they are over:

- **I1** every call has one end: \`[DONE]\`, an HTTP error, or an error event and a close; no slot was settled twice.
- **I2** what a client got is an exact prefix of what it was owed: nothing doubled, missing or foreign.
- **I3** slots, rings, queues, arena and counts in flight are empty within 2 s of quiet.
- **I4** descriptors that are no sockets are as many as before, and no connection is left that its peer has closed. RSS is measured by T21, T22
  and the swarm.
- **I7** nothing is in flight at any replica, by the gateway's own count; the swarm, T33 and T34 ask the replicas.
- **I8** neither prompts nor tokens nor keys are in the logs.
- **I9** \`/readyz\` says the same on both listeners, and what \`/v1/cluster\` shows.

I5 (billed is delivered) and I6 (an abort arrives within 250 ms) need what a test knows: hedging, continuation and usage tests compare the
tokens of \`/metrics\` with those of the clients; T20 and T21 time every abort by the ledgers of the replicas.

## Battery

| id | done | must | shown with less | seen | tests | invariants | |
|---|---|---|---|---|---|---|---|
${table.join('\n')}
${scorecard === '' ? '' : `\n## Failover scorecard\n\nTwo replicas, the first one faulty, one request each, streaming and not; \`continuation: text\`.\n\n${scorecard.trim()}\n`}`;
}
