/** The brain's decisions and the error catalogue: which number answers a refusal. Pure. */
import { ownLimit, Refusal, RetryRule } from '../dispatch/decisions.ts';
import { LimitKind } from '../dispatch/limit-rows.ts';
import { errorOf, errors } from '../errors/catalogue.ts';

type Plain = Exclude<Refusal, typeof Refusal.failed | typeof Refusal.limited>;

const numbers: Readonly<Record<Plain, number>> = {
  [Refusal.queueFull]: errors.QUEUE_FULL.number,
  [Refusal.queueWaitOver]: errors.QUEUE_TIMEOUT.number,
  [Refusal.noReplica]: errors.NO_REPLICA.number,
  // None of them said why: they are out for what they did.
  [Refusal.busy]: errors.NO_REPLICA.number,
  [Refusal.deadline]: errors.DEADLINE.number,
  [Refusal.clientGone]: errors.CLIENT_GONE.number,
  [Refusal.stopping]: errors.SHUTTING_DOWN.number,
  [Refusal.tooLate]: errors.DEADLINE_TOO_SOON.number,
  [Refusal.shed]: errors.SHED.number,
  [Refusal.gone]: errors.RESPONSE_NOT_FOUND.number,
  [Refusal.tooLong]: errors.CONTEXT_OVERFLOW.number,
  [Refusal.refused]: errors.REPLY_REFUSED.number,
  [Refusal.unsure]: errors.REPLY_UNSURE.number,
};

const ofLimit: Readonly<Record<LimitKind, number>> = {
  [LimitKind.requests]: errors.REQUEST_LIMIT.number,
  [LimitKind.input]: errors.TOKEN_LIMIT.number,
  [LimitKind.output]: errors.TOKEN_LIMIT.number,
  [LimitKind.concurrency]: errors.CONCURRENCY_LIMIT.number,
  [LimitKind.storeDown]: errors.LIMITS_UNKNOWN.number,
};

/** Failures in which no byte of the request was sent. */
const beforeSend: ReadonlySet<number> = new Set([
  errors.CONNECT_REFUSED.number,
  errors.CONNECT_TIMEOUT.number,
  errors.DNS_FAILED.number,
  errors.TLS_FAILED.number,
]);

/** Failures of a batch as a whole. */
const ofBatch: ReadonlySet<number> = new Set([
  errors.BATCH_REFUSED.number,
  errors.BATCH_ANSWER.number,
  errors.BATCH_FAILED.number,
]);

export function retryRuleOf(error: number): RetryRule {
  if (error === errors.CONTEXT_OVERFLOW.number) return RetryRule.otherModel;
  if (error === errors.REPLY_REFUSED.number) return RetryRule.refused;
  if (error === errors.REPLY_UNSURE.number) return RetryRule.unsure;
  if (errorOf(error).retry === 'never') return RetryRule.never;
  if (ofBatch.has(error)) return RetryRule.alone;
  if (error === errors.FORWARDER_LOST.number) return RetryRule.again;
  if (error === errors.REPLICA_UNAUTHORIZED.number) return RetryRule.unserved;
  return beforeSend.has(error) ? RetryRule.anywhere : RetryRule.elsewhere;
}

/**
 * Number of the error that ends a request after `attempts` attempts. One failure speaks for itself,
 * and so do one that forbids a retry and one that the client can mend; several are summed up.
 */
export function errorOfRefusal(refusal: Refusal, lastError: number, attempts: number): number {
  if (refusal === Refusal.limited) return ofLimit[lastError as LimitKind];
  if (refusal === Refusal.busy && lastError === ownLimit) return errors.REPLICA_LIMIT.number;
  if (refusal === Refusal.busy && lastError !== 0) return lastError;
  if (refusal !== Refusal.failed) return numbers[refusal];
  const isTelling =
    attempts === 1 ||
    lastError === errors.CLIENT_KEY_REFUSED.number ||
    retryRuleOf(lastError) === RetryRule.never;
  return lastError !== 0 && isTelling ? lastError : errors.ALL_ATTEMPTS_FAILED.number;
}
