/** The statistics of a simulated replica as Prometheus text under vLLM's names. Pure. */
import type { StatsSnapshot } from './stats.ts';

/** What the KV memory of an engine holds and what its prefix cache saved. */
export interface CacheFigures {
  /** 0 to 1. */
  readonly usage: number;
  readonly kvPages: number;
  readonly pageTokens: number;
  readonly queriedTokens: number;
  readonly hitTokens: number;
  readonly preemptions: number;
}

export function renderMetrics(stats: StatsSnapshot, model: string, cache: CacheFigures): string {
  const labels = `{model_name="${model.replace(/[\\"\n]/g, '_')}",engine="0"}`;
  const counter = (name: string, help: string, value: number): string =>
    metric(name, 'counter', help, labels, value);
  return [
    metric(
      'num_requests_running',
      'gauge',
      'Requests in the running batch.',
      labels,
      stats.running,
    ),
    metric('num_requests_waiting', 'gauge', 'Requests waiting for a slot.', labels, stats.waiting),
    metric('kv_cache_usage_perc', 'gauge', 'KV cache in use; 1 is all.', labels, cache.usage),
    counter('prefix_cache_queries_total', 'Prompt tokens looked up.', cache.queriedTokens),
    counter('prefix_cache_hits_total', 'Prompt tokens found cached.', cache.hitTokens),
    counter('num_preemptions_total', 'Requests that made room for others.', cache.preemptions),
    counter('prompt_tokens_total', 'Prompt tokens.', stats.prompt_tokens),
    counter('generation_tokens_total', 'Tokens sent.', stats.tokens_emitted),
    counter('request_success_total', 'Requests answered.', stats.served),
    metric(
      'cache_config_info',
      'gauge',
      'Cache configuration.',
      `{block_size="${cache.pageTokens}",num_gpu_blocks="${cache.kvPages}",engine="0"}`,
      1,
    ),
  ].join('');
}

function metric(name: string, type: string, help: string, labels: string, value: number): string {
  const full = `vllm:${name}`;
  return `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n${full}${labels} ${value}\n`;
}
