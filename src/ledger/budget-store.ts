/**
 * What gateways that share budgets have spent, in Redis: a hash for each tenant and period, with a field for
 * each gateway and `total`. Ledger thread.
 *
 * A gateway says what it has spent in the period so far, never what it has spent more: said twice, or late
 * by a process that is being replaced, it changes nothing, since a field never falls. So an answer that was
 * lost needs no thought. `total` is kept beside the fields by the same atomic script, so that a call costs
 * the same however many gateways there have been.
 *
 * Two arguments for each key: what the gateway has spent, in billionths; milliseconds until the key may go.
 * Before them its id. Two values for each key come back: the total, and what of it is this gateway's.
 */
import { createHash } from 'node:crypto';
import type { RedisConnection, RedisOptions } from '../redis/connection.ts';
import { parseNode } from '../redis/nodes.ts';

const script = `
local out = {}
for i, key in ipairs(KEYS) do
  local spent = tonumber(ARGV[2 * i])
  local own = tonumber(redis.call('HGET', key, ARGV[1])) or 0
  local total = tonumber(redis.call('HGET', key, 'total')) or 0
  if spent > own then
    total = total + spent - own
    own = spent
    redis.call('HSET', key, ARGV[1], string.format('%.0f', own), 'total', string.format('%.0f', total))
    redis.call('PEXPIRE', key, ARGV[2 * i + 1])
  end
  out[2 * i - 1] = string.format('%.0f', total)
  out[2 * i] = string.format('%.0f', own)
end
return out
`;

/** Of a digest; enough that no two stores of an operator have the same. */
const placeChars = 16;

export interface PeriodCall {
  /** `2026-12-01` or `2026-12`. */
  readonly period: string;
  readonly spent: number;
  /** From then on nobody asks. */
  readonly expiresInMs: number;
}
export interface PeriodAnswer {
  readonly total: number;
  readonly own: number;
}

export interface BudgetStore {
  /** Which one it is: the same where the same sums are kept. Tells nothing else. */
  readonly place: string;
  /** Opens a connection where there is none. Rejects when that fails. */
  connect(): Promise<void>;
  /** Rejects when there is no answer in time, or with a RefusedError. */
  exchange(
    gateway: string,
    tenant: string,
    calls: readonly PeriodCall[],
  ): Promise<readonly PeriodAnswer[]>;
  /** What is under way has failed; connect() begins anew. */
  close(): void;
}

export class RedisBudgets implements BudgetStore {
  readonly place: string;
  readonly #options: RedisOptions;
  readonly #prefix: string;
  #redis: RedisConnection | undefined;

  constructor(options: RedisOptions, prefix: string) {
    this.#options = options;
    this.#prefix = prefix;
    this.place = placeOf(options, prefix);
  }

  async connect(): Promise<void> {
    const { RedisConnection } = await import('../redis/connection.ts');
    this.#redis ??= new RedisConnection(this.#options, script);
    await this.#redis.connect();
  }

  async exchange(
    gateway: string,
    tenant: string,
    calls: readonly PeriodCall[],
  ): Promise<PeriodAnswer[]> {
    if (this.#redis === undefined) throw new Error('no connection');
    const keys = calls.map(({ period }) => `${this.#prefix}{${tenant}}:budget:${period}`);
    const ofEach = calls.flatMap(({ spent, expiresInMs }) => [spent, expiresInMs].map(String));
    const values = await this.#redis.run(keys, [gateway, ...ofEach], 2 * calls.length);
    return calls.map((_, i) => ({
      total: values[2 * i] as number,
      own: values[2 * i + 1] as number,
    }));
  }

  close(): void {
    this.#redis?.close();
  }
}

/** By the addresses in any order, without who asks there: passwords change, and a digest of one is no secret. */
function placeOf({ mode, urls, master }: RedisOptions, prefix: string): string {
  const nodes = urls.map(parseNode).map(({ host, port, database }) => [host, port, database]);
  const text = JSON.stringify([mode, master, prefix, nodes.map(String).toSorted()]);
  return createHash('sha256').update(text).digest('hex').slice(0, placeChars);
}
