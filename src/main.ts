#!/usr/bin/env node
/** The `sluice` program: parses the command line and runs one command of cli/. */
import { Command, CommanderError } from 'commander';

const program = new Command('sluice')
  .description('LLM inference gateway: one OpenAI-compatible endpoint in front of many replicas')
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text) });

try {
  await program.parseAsync(process.argv);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // Help and version end well; everything else commander refuses is bad usage.
  process.exitCode = error.exitCode === 0 ? 0 : 2;
}
