/** What a rule over more than one key is, and what such rules share. Pure. */
import type { ConfigPath } from './problems.ts';

interface ReplicaShape {
  readonly url: string;
  readonly name?: string | undefined;
  readonly weight: number;
  readonly adapters: readonly string[];
}
interface LimitsShape {
  readonly requests_per_minute: number;
  readonly input_tokens_per_minute: number;
  readonly output_tokens_per_minute: number;
  readonly concurrency: number;
}
interface TenantShape {
  readonly name: string;
  readonly limits: LimitsShape;
  readonly model_limits: Readonly<Record<string, LimitsShape>>;
  readonly budget: { readonly day: number; readonly month: number };
  readonly cascade: 'auto' | 'large' | 'small';
  readonly models?: readonly string[] | undefined;
  readonly keys: readonly {
    readonly id: string;
    readonly sha256: string;
    readonly models?: readonly string[] | undefined;
  }[];
}
interface ReplyShape {
  readonly refusal: boolean;
  readonly finish_reasons: readonly string[];
  readonly header?: string | undefined;
  readonly field?: string | undefined;
  readonly mean_logprob_below?: number | undefined;
}
interface ModelShape {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly fallbacks: readonly string[];
  readonly context_window_fallbacks: readonly string[];
  readonly allowed_media_domains: readonly string[];
  readonly price?: object | undefined;
  readonly cascade?:
    | { readonly model: string; readonly on_reply?: ReplyShape | undefined }
    | undefined;
  readonly lora?: { readonly adapters: readonly { readonly name: string }[] } | undefined;
  readonly replicas: readonly ReplicaShape[];
}
interface UsageShape {
  readonly file: string;
  readonly kafka?: object | undefined;
  readonly redis_stream?: object | undefined;
  readonly nats?: object | undefined;
}
interface SplitShape {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly models: readonly { readonly model: string; readonly weight: number }[];
}

/** What the rules read of a config, before defaults that depend on the whole are filled in. */
export interface RuleInput {
  readonly listen: { readonly host: string; readonly port: number; readonly max_body: number };
  readonly admin: { readonly host: string; readonly port: number; readonly token: string };
  readonly threads: { readonly acceptors: number };
  readonly memory: {
    readonly slots: number;
    readonly arena: number;
    readonly responses: number;
  };
  readonly timeouts: { readonly first_token: number; readonly total: number };
  readonly health: { readonly interval: number; readonly timeout: number };
  readonly engine_metrics: { readonly interval: number; readonly timeout: number };
  readonly limits: {
    readonly store: string;
    readonly redis: {
      readonly mode: string;
      readonly urls: readonly string[];
      readonly master: string;
    };
  };
  readonly retry: { readonly max_attempts: number };
  readonly usage: UsageShape;
  readonly models: readonly ModelShape[];
  readonly splits: readonly SplitShape[];
  readonly tenants: readonly TenantShape[];
}

export const hasBudget = ({ day, month }: TenantShape['budget']): boolean => day > 0 || month > 0;

export const hasRate = (limits: LimitsShape): boolean =>
  limits.requests_per_minute > 0 ||
  limits.input_tokens_per_minute > 0 ||
  limits.output_tokens_per_minute > 0;

/** Something is counted for it, so that it has a row in the table of limits; caps of single requests need none. */
export const isCounted = (limits: LimitsShape): boolean =>
  hasRate(limits) || limits.concurrency > 0;

export type Report = (path: ConfigPath, message: string) => void;

export interface Rule {
  readonly name: string;
  readonly reads: readonly (keyof RuleInput)[];
  check(config: RuleInput, report: Report): void;
}

/** Reports every second use of a value, naming the place of the first and never the value. */
export function uniqueNames(report: Report): (value: string, path: ConfigPath) => void {
  const seen = new Map<string, string>();
  return (value, path) => {
    const first = seen.get(value);
    if (first === undefined) seen.set(value, path.join('.'));
    else report(path, `is the same as ${first}`);
  };
}
