/**
 * The request headers that steer the gateway: priority, deadline, hedge, session, explanation, cascade. Pure;
 * acceptor threads.
 * Parsed strictly: a value that is not understood refuses the request instead of being ignored.
 */
import { priorityMax } from '../config/capacities.ts';
import { tenantLane } from '../protocol/request-keys.ts';
import type { EdgeHead } from './edge-head.ts';
import type { Holder } from './key-ring.ts';

const priorityPattern = /^-?\d{1,3}$/;
const deadlinePattern = /^\d{1,8}$/;
const deadlineMsMax = 86_400_000;
const hedgePattern = /^(1|true|[1-9]\d{0,7})$/;
const sessionLengthMax = 1024;
const cascadeWishes: ReadonlySet<string> = new Set(['', 'large', 'small']);

/** Name of the first header with an unusable value; '' when all are fine. */
export function invalidHints({ rules }: EdgeHead): string {
  const { priority, deadlineMs, hedge, sessionId, explain, cascade } = rules;
  if (priority !== '') {
    if (!priorityPattern.test(priority)) return 'x-sluice-priority';
    if (Math.abs(Number(priority)) > priorityMax) return 'x-sluice-priority';
  }
  if (deadlineMs !== '') {
    if (!deadlinePattern.test(deadlineMs)) return 'x-sluice-deadline-ms';
    const ms = Number(deadlineMs);
    if (ms < 1 || ms > deadlineMsMax) return 'x-sluice-deadline-ms';
  }
  if (hedge !== '') {
    if (!hedgePattern.test(hedge)) return 'x-sluice-hedge';
    if (hedge !== 'true' && Number(hedge) > deadlineMsMax) return 'x-sluice-hedge';
  }
  if (explain !== '' && explain !== '1') return 'x-sluice-explain';
  if (!cascadeWishes.has(cascade)) return 'x-sluice-cascade';
  return sessionId.length > sessionLengthMax ? 'x-session-id' : '';
}

/** From -100 to 100; 0 is the default. Of a tenant: its own, and what it asks for if that is trusted. */
export function priorityOf({ rules }: EdgeHead, holder: Holder | undefined): number {
  const isTrusted = holder === undefined || holder.mayPrioritise;
  const asked = rules.priority === '' || !isTrusted ? 0 : Number(rules.priority);
  const priority = (holder?.priority ?? 0) + asked;
  return Math.max(-priorityMax, Math.min(priorityMax, priority));
}

/** Lane of fair queueing, from the key that came with the request. */
export function tenantOf({ rules }: EdgeHead): number {
  return tenantLane(rules.authorization === '' ? rules.apiKey : rules.authorization);
}

/** 0: timeouts.total counts. */
export function deadlineOf({ rules }: EdgeHead): number {
  return rules.deadlineMs === '' ? 0 : Number(rules.deadlineMs);
}

/** Milliseconds after which a hedge is wanted: 0 at once, -1 not at all. */
export function hedgeOf({ rules }: EdgeHead): number {
  if (rules.hedge === '') return -1;
  return rules.hedge === '1' || rules.hedge === 'true' ? 0 : Number(rules.hedge);
}
