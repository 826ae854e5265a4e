#!/usr/bin/env node
/** The `sluice` program: parses the command line and runs one command of cli/. */
import { Command, CommanderError } from 'commander';
import { benchCommand } from './cli/bench.ts';
import { checkCommand } from './cli/check.ts';
import { demoCommand } from './cli/demo.ts';
import { keyCommand } from './cli/key.ts';
import { helpStyle } from './cli/options.ts';
import { replicaCommand } from './cli/replica.ts';
import { serveCommand } from './cli/serve.ts';
import { simulateCommand } from './cli/simulate.ts';
import { usageCommand } from './cli/usage.ts';
import { version } from './gateway/version.ts';
import { ExitCode } from './lib/exit-code.ts';

const program = new Command('sluice')
  .description('LLM inference gateway: one OpenAI-compatible endpoint in front of many replicas')
  .version(version)
  .showHelpAfterError();

for (const command of [
  serveCommand(),
  checkCommand(),
  demoCommand(),
  replicaCommand(),
  keyCommand(),
  usageCommand(),
  benchCommand(),
  simulateCommand(),
]) {
  program.addCommand(withExitOverride(command));
}

// A full device or a reader that has gone: what cannot be said stops nobody who serves.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

try {
  await withExitOverride(program).parseAsync(process.argv);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // Help and version end well; everything else commander refuses is bad usage.
  process.exitCode = error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
}

/** Commands throw instead of exiting, so that one place decides about exit codes. */
function withExitOverride(command: Command): Command {
  return command.exitOverride().configureHelp(helpStyle);
}
