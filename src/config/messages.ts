/** The words for what a schema refuses; pure, and never repeating the value. */
import type { z } from 'zod';

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
