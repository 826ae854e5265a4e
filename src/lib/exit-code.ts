/** Exit codes of every command (DESIGN 6). */
export const ExitCode = { ok: 0, failed: 1, usage: 2 } as const;
