/**
 * Schema issues in our words, with the key that was probably meant.
 *
 * Pure; runs on a bad config only. Neither a message nor a hint repeats a value of the config.
 */
import type { z } from 'zod';
import { nearest } from './nearest.ts';
import type { ConfigPath } from './problems.ts';
import { schemaAt } from './schema-tree.ts';

export interface Finding {
  readonly path: ConfigPath;
  /** An unknown key under `path`; its place is the key itself. */
  readonly key?: string;
  readonly message: string;
  readonly hint: string | undefined;
}

/** Of one issue; a file of a million unknown keys asks for no more work than this. */
const findingsMax = 100;

/** What an issue of the schema says; one finding for each unknown key. */
export function findingsOf(issue: z.core.$ZodIssue, config: unknown): readonly Finding[] {
  const path = issue.path as ConfigPath; // JSON and YAML have no symbol keys
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schemaAt(path)?.properties ?? {});
    return issue.keys.slice(0, findingsMax).map((key) => ({
      path,
      key,
      message: 'unknown key',
      hint: nearest(key, known),
    }));
  }
  const options = issue.code === 'invalid_value' ? schemaAt(path)?.enum : undefined;
  const value = options === undefined ? undefined : valueAt(config, path);
  const hint = typeof value === 'string' ? nearest(value, options ?? []) : undefined;
  return [{ path, message: issue.message, hint }];
}

/** The value at a path, through own properties only. */
export function valueAt(value: unknown, path: ConfigPath): unknown {
  let found = value;
  for (const step of path) {
    if (typeof found !== 'object' || found === null || !Object.hasOwn(found, step))
      return undefined;
    found = (found as Record<string | number, unknown>)[step];
  }
  return found;
}
