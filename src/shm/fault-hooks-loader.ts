/**
 * The fault hooks, when the environment of the process asked for them at its start; else nothing.
 *
 * Loaded without `await`: V8 aborts the process when a thread is terminated while a module that waits, or one
 * that imports such a module, is being evaluated.
 */
import { createRequire } from 'node:module';
import type { FaultHooks, hookedOldGenerationMb } from './fault-hooks.ts';

interface FaultHooksModule {
  readonly FaultHooks: typeof FaultHooks;
  readonly hookedOldGenerationMb: typeof hookedOldGenerationMb;
}

const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
const load = () => createRequire(import.meta.url)(`./fault-hooks.${ending}`) as FaultHooksModule;

export const faultHooksModule = process.env.SLUICE_FAULT_HOOKS === '1' ? load() : undefined;
