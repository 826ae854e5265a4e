/**
 * Faults set at run time for many requests: every nth, with a probability, so many times. Pure state.
 *
 * Invariant: a rule's draws depend on its seed and the requests it saw, on nothing else.
 */
import { createPrng, type Prng } from '../lib/prng.ts';
import { type FaultPlan, readFaults } from './faults.ts';

/** What kind of request a rule is for. */
export type FaultScope = 'generate' | 'models' | 'health' | 'any';

export interface FaultRule {
  /** Faults in the form of readFaults, as `status=503;retry-after=5`. */
  readonly fault: string;
  readonly on?: FaultScope;
  /** Only requests whose x-request-id or nonce is this. */
  readonly id?: string;
  /** Of the matching requests, the first this many are spared. */
  readonly skip?: number;
  /** Then every nth. */
  readonly every?: number;
  /** Then with this chance, 0 to 1. */
  readonly probability?: number;
  readonly seed?: number;
  /** At most this many times. */
  readonly count?: number;
}

interface ActiveRule {
  readonly rule: FaultRule;
  readonly random: Prng;
  seen: number;
  applied: number;
}

const RULES_MAX = 64;
const NUMBER_KEYS = ['skip', 'every', 'probability', 'seed', 'count'] as const;
const KEYS = new Set<string>(['fault', 'on', 'id', ...NUMBER_KEYS]);
const SCOPES: readonly unknown[] = ['generate', 'models', 'health', 'any'];

export class FaultRules {
  #active: ActiveRule[] = [];

  get empty(): boolean {
    return this.#active.length === 0;
  }

  /** Replaces all rules. On a message nothing has changed. */
  replace(rules: readonly unknown[]): string | undefined {
    if (rules.length > RULES_MAX) return `at most ${RULES_MAX} fault rules`;
    const active: ActiveRule[] = [];
    for (const rule of rules) {
      const problem = problemOf(rule);
      if (problem !== undefined) return problem;
      const valid = rule as FaultRule;
      active.push({ rule: valid, random: createPrng(valid.seed ?? 0), seen: 0, applied: 0 });
    }
    this.#active = active;
    return undefined;
  }

  /** Adds to `plan` what the rules do to this request; true when any did. */
  apply(scope: FaultScope, id: string, nonce: string, plan: FaultPlan): boolean {
    let any = false;
    for (const active of this.#active) {
      const { rule } = active;
      const on = rule.on ?? 'generate';
      if (on !== 'any' && on !== scope) continue;
      if (rule.id !== undefined && rule.id !== id && rule.id !== nonce) continue;
      if (!draws(active)) continue;
      active.applied++;
      readFaults(rule.fault, plan);
      any = true;
    }
    return any;
  }
}

function draws(active: ActiveRule): boolean {
  const { rule } = active;
  const nth = active.seen++ - (rule.skip ?? 0);
  if (nth < 0 || active.applied >= (rule.count ?? Number.POSITIVE_INFINITY)) return false;
  if (rule.every !== undefined && (nth + 1) % rule.every !== 0) return false;
  return rule.probability === undefined || active.random.next() / 2 ** 32 < rule.probability;
}

function problemOf(rule: unknown): string | undefined {
  if (typeof rule !== 'object' || rule === null) return 'a fault rule is an object';
  const fields = new Map<string, unknown>(Object.entries(rule));
  for (const key of fields.keys()) if (!KEYS.has(key)) return `fault rule: unknown key ${key}`;
  const fault = fields.get('fault');
  if (typeof fault !== 'string') return 'fault rule: fault must be a text';
  const on = fields.get('on');
  if (on !== undefined && !SCOPES.includes(on)) return 'fault rule: unknown scope in on';
  for (const key of NUMBER_KEYS) {
    const value = fields.get(key);
    if (value === undefined) continue;
    const low = key === 'every' ? 1 : 0;
    if (typeof value !== 'number' || !(value >= low)) return `fault rule: bad number in ${key}`;
  }
  return readFaults(fault, {});
}
