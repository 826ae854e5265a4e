/** `sluice key new`: makes an API key and what the config has of it. Short-lived main thread. */
import { styleText } from 'node:util';
import { Command } from 'commander';
import { ExitCode } from '../lib/exit-code.ts';

interface Flags {
  readonly id: string;
  readonly expires?: string;
  readonly json: boolean;
}

export function keyCommand(): Command {
  const create = new Command('new')
    .description(
      'make an API key: prints it once, and the lines for `tenants[].keys` of the config',
    )
    .option('--id <name>', 'names the key in logs and admin paths', 'default')
    .option('--expires <time>', 'refused from then on, as 2027-01-31T00:00:00Z')
    .option('--json', 'print one JSON object instead of text', false)
    .action(async ({ id, expires, json }: Flags) => {
      const { parseNewKey } = await import('../config/new-key.ts');
      const { newKey, sha256Of } = await import('../protocol/api-key.ts');
      const parsed = parseNewKey({ id, ...(expires === undefined ? {} : { expires }) });
      if (!parsed.ok) {
        process.stderr.write(`${styleText('red', parsed.message, { stream: process.stderr })}\n`);
        process.exitCode = ExitCode.usage;
        return;
      }
      const key = newKey();
      const entry = { id, sha256: sha256Of(key), ...(expires === undefined ? {} : { expires }) };
      if (json) process.stdout.write(`${JSON.stringify({ key, ...entry })}\n`);
      else {
        const fields = Object.entries(entry).map(([name, value]) => `${name}: ${value}`);
        process.stdout.write(
          `${key}\n\nThe key is shown this once. For tenants[].keys of the config:\n\n  - { ${fields.join(', ')} }\n`,
        );
      }
    });
  return new Command('key').description('keys of tenants').addCommand(create);
}
