/** The statistics of a simulated replica as Prometheus text under vLLM's names. Pure. */
import type { StatsSnapshot } from './stats.ts';

/** KV tokens of an 8B model on one 80 GB card; what kv_cache_usage_perc is a share of. */
const KV_CAPACITY_TOKENS = 448_000;
const BLOCK_TOKENS = 16;

export function renderMetrics(stats: StatsSnapshot, model: string, residentTokens: number): string {
  const labels = `{model_name="${model.replace(/[\\"\n]/g, '_')}",engine="0"}`;
  const usage = Math.min(1, residentTokens / KV_CAPACITY_TOKENS);
  const blocks = KV_CAPACITY_TOKENS / BLOCK_TOKENS;
  return [
    metric(
      'num_requests_running',
      'gauge',
      'Requests in the running batch.',
      labels,
      stats.running,
    ),
    metric('num_requests_waiting', 'gauge', 'Requests waiting for a slot.', labels, stats.waiting),
    metric('kv_cache_usage_perc', 'gauge', 'KV cache in use; 1 is all.', labels, usage),
    metric('prompt_tokens_total', 'counter', 'Prompt tokens.', labels, stats.prompt_tokens),
    metric('generation_tokens_total', 'counter', 'Tokens sent.', labels, stats.tokens_emitted),
    metric('request_success_total', 'counter', 'Requests answered.', labels, stats.served),
    metric(
      'cache_config_info',
      'gauge',
      'Cache configuration.',
      `{block_size="${BLOCK_TOKENS}",num_gpu_blocks="${blocks}",engine="0"}`,
      1,
    ),
  ].join('');
}

function metric(name: string, type: string, help: string, labels: string, value: number): string {
  const full = `vllm:${name}`;
  return `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n${full}${labels} ${value}\n`;
}
