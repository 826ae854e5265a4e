/**
 * `sluice check`: validates a config file and says what it would run.
 *
 * Short-lived main thread. Exit 0 for a good config, 2 for a bad one (docs/adr/0002). Problems go to
 * standard error, the summary to standard output; no value of a secret is ever printed.
 */
import { styleText } from 'node:util';
import { Command } from 'commander';
import type { LoadResult } from '../config/load.ts';
import type { Problem } from '../config/problems.ts';
import type { Config } from '../config/schema.ts';

/** Colour only when the stream is a terminal that wants it. */
const toError = { stream: process.stderr };

type Row = readonly [name: string, value: string];

export function checkCommand(): Command {
  return new Command('check')
    .description('validate a config file; prints FILE:line:col path: message for every problem')
    .option('--config <file>', 'config file', './sluice.yaml')
    .option('--json', 'print one JSON object instead of text', false)
    .action(async (options: { config: string; json: boolean }) => {
      const { loadConfigFile } = await import('../config/file.ts');
      const { formatProblem } = await import('../config/problems.ts');
      const { withTokenizers } = await import('./tokenizers.ts');
      const result = await withTokenizers(loadConfigFile(options.config, process.env));
      const rows = result.ok ? await summaryRows(result.config) : [];
      if (options.json) {
        process.stdout.write(`${JSON.stringify(jsonReport(options.config, result, rows))}\n`);
      } else {
        printText(options.config, result, rows, formatProblem);
      }
      if (!result.ok) process.exitCode = 2;
    });
}

async function summaryRows(config: Config): Promise<readonly Row[]> {
  const { formatSize } = await import('../lib/quantity.ts');
  const { memoryWarning } = await import('../gateway/memory-limit.ts');
  const { listen, admin, threads, memory } = config;
  const warning = memoryWarning(config);
  const models = config.models.map((model): Row => {
    const names = [model.name, ...model.aliases].join(', ');
    const replicas = model.replicas.map((replica) => `${replica.name} ${replica.url}`).join(', ');
    return ['model', `${names}: ${model.policy} over ${model.replicas.length} (${replicas})`];
  });
  const scheme = listen.tls === undefined ? 'http' : 'https';
  const body = formatSize(listen.max_body);
  const adminRights = admin.token === '' ? 'read-only' : 'with token';
  return [
    [
      'listen',
      `${scheme}://${listen.host}:${listen.port}, engine ${listen.engine}, bodies to ${body}`,
    ],
    ['admin', `http://${admin.host}:${admin.port}, ${adminRights}`],
    ['threads', `acceptors ${threads.acceptors}, scheduler 1, forwarders ${threads.forwarders}`],
    ['memory', `${memory.slots} slots, ${formatSize(memory.arena)} for request bodies`],
    ...(warning === '' ? [] : [['note', warning] satisfies Row]),
    ...models,
  ];
}

function jsonReport(file: string, result: LoadResult, rows: readonly Row[]): object {
  if (!result.ok) return { ok: false, file, problems: result.problems };
  const summary = rows.map(([name, value]) => ({ name, value }));
  return { ok: true, file, warnings: result.warnings, summary };
}

function printText(
  file: string,
  result: LoadResult,
  rows: readonly Row[],
  formatProblem: (problem: Problem) => string,
): void {
  const problems = result.ok ? result.warnings : result.problems;
  for (const problem of problems) {
    const line = formatProblem(problem);
    const text = result.ok
      ? styleText('yellow', `${line} (warning)`, toError)
      : styleText('red', line, toError);
    process.stderr.write(`${text}\n`);
  }
  if (!result.ok) return;
  const ok = styleText('green', 'ok', { stream: process.stdout });
  process.stdout.write(`${file}: ${ok}\n`);
  for (const [name, value] of rows) process.stdout.write(`  ${name.padEnd(8)} ${value}\n`);
}
