/** The body of an admin request, held against a row of the config schema. Pure. */
import type { z } from 'zod';
import { messageOf } from './messages.ts';
import { type ConfigPath, pathText } from './problems.ts';

export type ParsedBody<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly message: string };

/** Everything that is wrong is in the message, and no value of the body. */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): ParsedBody<z.output<S>> {
  const parsed = schema.safeParse(body, { error: messageOf });
  if (parsed.success) return { ok: true, value: parsed.data };
  const messages = parsed.error.issues.map((issue) => {
    if (issue.code !== 'unrecognized_keys') {
      return `${pathText(issue.path as ConfigPath) || 'body'} ${issue.message}`;
    }
    return `unknown key ${issue.keys.map((key) => pathText([key])).join(', ')}`;
  });
  return { ok: false, message: messages.slice(0, 10).join('; ') };
}
