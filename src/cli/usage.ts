/**
 * `sluice usage`: what the usage files say, summed up. Short-lived main thread; files are read by the line,
 * whatever their size, and an event that is there twice counts once.
 */
import { styleText } from 'node:util';
import { Command, InvalidArgumentError, Option } from 'commander';
import { ExitCode } from '../lib/exit-code.ts';

const groups = ['tenant', 'key_id', 'model', 'replica', 'day', 'currency'] as const;
type Group = (typeof groups)[number];

interface Flags {
  readonly by: readonly Group[];
  readonly since?: string;
  readonly until?: string;
  readonly json: boolean;
}

function groupNames(text: string): Group[] {
  const names = text.split(',');
  const unknown = names.find((name) => !groups.some((group) => group === name));
  if (unknown === undefined) return names as Group[];
  throw new InvalidArgumentError(`must be some of ${groups.join(', ')}, with commas between`);
}

export function usageCommand(): Command {
  return new Command('usage')
    .description('sum up usage files: requests, tokens and cost by tenant and model')
    .argument('<file...>', 'usage files, renamed ones too')
    .addOption(
      new Option('--by <names>', `what a row is of, of ${groups.join(', ')}`)
        .argParser(groupNames)
        .default(['tenant', 'model'], 'tenant,model'),
    )
    .option('--since <time>', 'no events before it, as 2026-12-01 or 2026-12-01T00:00:00Z')
    .option('--until <time>', 'none from it on')
    .option('--json', 'print one JSON object instead of a table', false)
    .action(async (files: string[], flags: Flags) => {
      const { readUsage, usageTable } = await import('../telemetry/usage-report.ts');
      const since = flags.since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(flags.since);
      const until = flags.until === undefined ? Number.POSITIVE_INFINITY : Date.parse(flags.until);
      if (Number.isNaN(since) || Number.isNaN(until)) {
        say('a time must be a date such as 2026-12-01 or 2026-12-01T00:00:00Z');
        process.exitCode = ExitCode.usage;
        return;
      }
      try {
        const report = await readUsage(files, flags.by, since, until);
        if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
        else process.stdout.write(usageTable(report));
        if (report.unreadable > 0) say(`${report.unreadable} lines are no usage events`);
      } catch (error) {
        say(error instanceof Error ? error.message : String(error));
        process.exitCode = ExitCode.failed;
      }
    });
}

const say = (text: string): void => {
  process.stderr.write(`${styleText('red', text, { stream: process.stderr })}\n`);
};
