/** Which model serves the name that a request asks for. Acceptor threads. */
import { errors } from '../errors/catalogue.ts';
import type { RequestFacts } from '../protocol/request-facts.ts';
import { sessionOf } from './columns.ts';
import { mayUse } from './key-ring.ts';
import type { Request } from './request.ts';

/**
 * Sets model and adapter of the request, and whether the reply is judged. 0, or an error number: there is
 * none, or its key may not ask for it.
 */
export function findModel(request: Request, scan: RequestFacts): number {
  const { holder, cascade, models } = request.facts;
  const { names } = models;
  const wish = cascade === '' ? (holder?.cascade ?? '') : cascade;
  const asked = names.byName.get(scan.model);
  if (asked === undefined) return errors.MODEL_NOT_FOUND.number;
  const served = names.serving(asked, sessionOf(request.facts, scan));
  const larger = names.larger(served, scan.promptBytes, wish);
  const { model, adapter } = larger ?? served;
  request.model = model;
  request.adapter = adapter;
  request.askedName = names.hashOf(asked);
  request.isRenamed = names.isOfGateway(scan.model, asked) || larger !== undefined;
  request.isJudged = wish !== 'small' && names.isJudged(larger ?? served);
  if (holder === undefined) return 0;
  // The name counts, not who is behind it; but whom a client picks itself, it must be allowed.
  const isPicked = larger !== undefined && cascade !== '';
  const mayAsk =
    mayUse(holder, asked.model, asked.adapter) && (!isPicked || mayUse(holder, model, adapter));
  return mayAsk ? 0 : errors.MODEL_NOT_ALLOWED.number;
}
