/** The fault hooks, when the environment of the process asked for them at its start; else nothing. */
export const faultHooksModule =
  process.env.SLUICE_FAULT_HOOKS === '1' ? await import('./fault-hooks.ts') : undefined;
