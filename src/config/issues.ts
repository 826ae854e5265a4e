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

const typeNames: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping of keys',
};

const countedThings: Readonly<Record<string, string>> = {
  array: ' entries',
  string: ' characters',
};

/** The message of an issue whose row brings none of its own. */
export function messageOf(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined) return 'is required';
      if (issue.input === null) return 'has no value';
      return `must be ${typeNames[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      return `must be one of ${issue.values.join(', ')}`;
    case 'too_small':
      return `must ${bound('at least', issue.origin, issue.minimum)}`;
    case 'too_big':
      return `must ${bound('at most', issue.origin, issue.maximum)}`;
    default:
      return 'is not valid';
  }
}

function bound(limit: string, origin: string, value: number | bigint): string {
  const things = countedThings[origin];
  return things === undefined ? `be ${limit} ${value}` : `have ${limit} ${value}${things}`;
}

/** What an issue of the schema says; one finding for each unknown key. */
export function findingsOf(issue: z.core.$ZodIssue, config: unknown): readonly Finding[] {
  const path = issue.path as ConfigPath; // JSON and YAML have no symbol keys
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schemaAt(path)?.properties ?? {});
    return issue.keys.map((key) => ({
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
