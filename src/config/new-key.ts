/** A key made at run time: the rows of the file but its digest. Pure. */
import type { z } from 'zod';
import { type ParsedBody, parseBody } from './body.ts';
import { Key } from './schema-tenants.ts';

const NewKey = Key.omit({ sha256: true });

export const parseNewKey = (body: unknown): ParsedBody<z.output<typeof NewKey>> =>
  parseBody(NewKey, body);
