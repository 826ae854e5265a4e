/** A replica added at run time: the same rows as in the file, plus the model it serves. Pure. */
import { z } from 'zod';
import { messageOf } from './messages.ts';
import { type ConfigPath, pathText } from './problems.ts';
import { Replica } from './schema-models.ts';

const NewReplica = Replica.extend({ name: Replica.shape.name.unwrap(), model: z.string().min(1) });
export type NewReplica = z.output<typeof NewReplica>;

/** Everything that is wrong is in the message, and no value of the body. */
export function parseNewReplica(
  body: unknown,
): { ok: true; replica: NewReplica } | { ok: false; message: string } {
  const parsed = NewReplica.safeParse(body, { error: messageOf });
  if (parsed.success) return { ok: true, replica: parsed.data };
  const messages = parsed.error.issues.map((issue) => {
    if (issue.code !== 'unrecognized_keys') {
      return `${pathText(issue.path as ConfigPath) || 'body'} ${issue.message}`;
    }
    return `unknown key ${issue.keys.map((key) => pathText([key])).join(', ')}`;
  });
  return { ok: false, message: messages.slice(0, 10).join('; ') };
}
