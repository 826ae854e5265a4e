/**
 * Requests that are turned away for want of room, and what limits of tenants decide: counted by the error that
 * the client gets. Acceptor threads; never blocks, allocates nothing.
 */
import { type ErrorEntry, errorList, errors } from '../errors/catalogue.ts';
import { metrics } from '../telemetry/catalogue.ts';
import {
  defaultMetricDims,
  LimitDimension,
  LimitResult,
  modelIndex,
  Shed,
} from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Holder } from './key-ring.ts';

const notFound = 255;

/** By error number. */
function tableOf(entries: readonly (readonly [ErrorEntry, number])[]): Uint8Array {
  const numbers = Math.max(...errorList.map(({ number }) => number)) + 1;
  const table = new Uint8Array(numbers).fill(notFound);
  for (const [{ number }, value] of entries) table[number] = value;
  return table;
}

const shedReasons = tableOf([
  [errors.QUEUE_FULL, Shed.queue_full],
  [errors.QUEUE_TIMEOUT, Shed.queue_timeout],
  [errors.SHED, Shed.priority],
  [errors.DEADLINE_TOO_SOON, Shed.deadline],
  [errors.ARENA_FULL, Shed.memory],
  [errors.OVERLOADED, Shed.memory],
  [errors.SLOTS_FULL, Shed.slots],
  [errors.RING_FULL, Shed.ring],
  [errors.REPLICA_LIMIT, Shed.replica_limit],
]);

const dimensions = tableOf([
  [errors.REQUEST_LIMIT, LimitDimension.requests],
  [errors.TOKEN_LIMIT, LimitDimension.tokens],
  [errors.CONCURRENCY_LIMIT, LimitDimension.concurrency],
  [errors.BUDGET_SPENT, LimitDimension.budget],
  [errors.LIMITS_UNKNOWN, LimitDimension.store],
]);

/** A request that got an error of the gateway; `model` is -1 where it is not known. */
export function countRefusal(
  { metrics: counters }: AcceptorState,
  holder: Holder | undefined,
  model: number,
  { number }: ErrorEntry,
): void {
  const reason = shedReasons[number] as number;
  if (reason !== notFound) {
    counters.addPair(metrics.shed, modelIndex(model, defaultMetricDims), reason, 1);
  }
  const dimension = dimensions[number] as number;
  if (holder === undefined || dimension === notFound) return;
  counters.addTriple(metrics.limitDecisions, holder.series, dimension, LimitResult.refused, 1);
}

/** A request that came to the scheduler; `failure` is how it ended, undefined for well. */
export function countAllowed(
  { metrics: counters }: AcceptorState,
  holder: Holder | undefined,
  model: number,
  failure: ErrorEntry | undefined,
): void {
  if (holder === undefined || !isLimited(holder, model)) return;
  if (failure !== undefined && dimensions[failure.number] !== notFound) return;
  const { all } = LimitDimension;
  counters.addTriple(metrics.limitDecisions, holder.series, all, LimitResult.allowed, 1);
}

const isLimited = ({ limitRow, modelRows, budgetRow }: Holder, model: number): boolean =>
  limitRow >= 0 || budgetRow >= 0 || modelRows.has(model);
