/** A replica added at run time: the same rows as in the file, plus the model it serves. Pure. */
import { z } from 'zod';
import { type ParsedBody, parseBody } from './body.ts';
import { Replica } from './schema-models.ts';

const NewReplica = Replica.safeExtend({
  name: Replica.shape.name.unwrap(),
  model: z.string().min(1),
});
export type NewReplica = z.output<typeof NewReplica>;

export const parseNewReplica = (body: unknown): ParsedBody<NewReplica> =>
  parseBody(NewReplica, body);
