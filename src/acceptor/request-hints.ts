/**
 * The request headers that steer the gateway: priority, deadline, session, explanation. Pure; acceptor threads.
 * Parsed strictly: a value that is not understood refuses the request instead of being ignored.
 */
import { tenants } from '../shm/request-slots.layout.ts';
import type { EdgeHead } from './edge-head.ts';

const priorityPattern = /^-?\d{1,3}$/;
const priorityMax = 100;
const deadlinePattern = /^\d{1,8}$/;
const deadlineMsMax = 86_400_000;
const sessionLengthMax = 1024;

/** Name of the first header with an unusable value; '' when all are fine. */
export function invalidHints({ rules }: EdgeHead): string {
  const { priority, deadlineMs, sessionId, explain } = rules;
  if (priority !== '') {
    if (!priorityPattern.test(priority)) return 'x-sluice-priority';
    if (Math.abs(Number(priority)) > priorityMax) return 'x-sluice-priority';
  }
  if (deadlineMs !== '') {
    if (!deadlinePattern.test(deadlineMs)) return 'x-sluice-deadline-ms';
    const ms = Number(deadlineMs);
    if (ms < 1 || ms > deadlineMsMax) return 'x-sluice-deadline-ms';
  }
  if (explain !== '' && explain !== '1') return 'x-sluice-explain';
  return sessionId.length > sessionLengthMax ? 'x-session-id' : '';
}

/** From -100 to 100; 0 is the default. */
export function priorityOf({ rules }: EdgeHead): number {
  return rules.priority === '' ? 0 : Number(rules.priority);
}

const keyHash = new Int32Array(2);

/**
 * The lane of fair queueing, 1 to tenants - 1, from the key that came with the request; 0 without
 * one. Keys that share a lane share its turns, so a flood of made-up keys gains lanes, never all.
 */
export function tenantOf({ rules }: EdgeHead): number {
  if (rules.authorization === '') return 0;
  hashSession(rules.authorization, keyHash, 0);
  return 1 + (((keyHash[0] as number) >>> 0) % (tenants - 1));
}

/** 0: timeouts.total counts. */
export function deadlineOf({ rules }: EdgeHead): number {
  return rules.deadlineMs === '' ? 0 : Number(rules.deadlineMs);
}

/**
 * FNV-1a, 64 bits, of the UTF-16 units of the key (low byte, then high byte where it is not 0), as two
 * int32: low, high. No key: 0 0. Multiplication by 2^40 + 0x1b3 in halves of 32 and 16 bits.
 */
export function hashSession(key: string, words: Int32Array, at: number): void {
  let low = 0;
  let high = 0;
  if (key !== '') {
    low = 0x84222325 | 0;
    high = 0xcbf29ce4 | 0;
  }
  for (let i = 0; i < key.length; i++) {
    const unit = key.charCodeAt(i);
    for (let byte = unit, more = true; more; byte >>>= 8) {
      low ^= byte & 0xff;
      const lowProduct = (low & 0xffff) * 0x1b3;
      const midProduct = (low >>> 16) * 0x1b3 + (lowProduct >>> 16);
      high = (Math.imul(high, 0x1b3) + (midProduct >>> 16) + (low << 8)) | 0;
      low = (midProduct << 16) | (lowProduct & 0xffff);
      more = byte > 0xff;
    }
  }
  words[at] = low;
  words[at + 1] = high;
}
