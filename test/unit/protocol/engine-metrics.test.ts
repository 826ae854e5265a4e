/** The pages of four engines, and what is no such page. */
import { describe, expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import {
  type EngineMetrics,
  EngineMetricsParser,
  engineMetricsBytesMax,
} from '../../../src/protocol/engine-metrics.ts';

const seed = Number(process.env.SEED ?? Date.now() >>> 0);
console.info(`SEED=${seed}`);

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function parse(text: string, chunk = Number.POSITIVE_INFINITY): EngineMetrics | undefined {
  const page = bytes(text);
  const parser = new EngineMetricsParser();
  for (let from = 0; from < page.length; from += chunk) {
    if (!parser.push(page.subarray(from, from + chunk))) break;
  }
  return parser.end();
}

const vllm = `# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12340.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta/llama {8b}"} 12.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta/llama {8b}"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta/llama {8b}"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="28000",num_cpu_blocks="7"} 1.0
vllm:request_success_total{engine="0",finished_reason="stop"} 7.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001"} 1.0
`;

describe('the page of', () => {
  test('vLLM', () => {
    const expected = { running: 12, waiting: 3, kvUsage: 0.25, kvCapacity: 448_000 };
    expect(parse(vllm)).toEqual(expected);
  });

  test('an older vLLM, and of one between that has both names', () => {
    const old = vllm.replaceAll('kv_cache_usage_perc', 'gpu_cache_usage_perc');
    expect(parse(old)?.kvUsage).toBe(0.25);
    expect(parse(`${vllm}vllm:gpu_cache_usage_perc{engine="0"} 0.75\n`)?.kvUsage).toBe(0.25);
  });

  test('vLLM with two engines: counts and sizes add up, shares are averaged', () => {
    const second = vllm
      .replaceAll('engine="0"', 'engine="1"')
      .replace('} 12.0', '} 8.0')
      .replace('} 0.25', '} 0.75');
    const expected = { running: 20, waiting: 6, kvUsage: 0.5, kvCapacity: 896_000 };
    expect(parse(vllm + second)).toEqual(expected);
  });

  test('SGLang', () => {
    const page = [
      'sglang:num_running_reqs{model_name="m",tp_rank="0"} 5.0',
      'sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2.0',
      'sglang:token_usage{model_name="m",tp_rank="0"} 0.5',
      'sglang:max_total_num_tokens{model_name="m",tp_rank="0"} 4.4e5',
      'sglang:cache_hit_rate{model_name="m",tp_rank="0"} 0.9',
    ].join('\n');
    const expected = { running: 5, waiting: 2, kvUsage: 0.5, kvCapacity: 440_000 };
    expect(parse(page)).toEqual(expected);
  });

  test('TGI, which says nothing of its cache', () => {
    const page = 'tgi_queue_size 4\ntgi_batch_current_size 9 1700000000000\ntgi_request_count 77\n';
    expect(parse(page)).toEqual({ running: 9, waiting: 4, kvUsage: 0, kvCapacity: 0 });
  });

  test('llama.cpp, with lines that end as on Windows', () => {
    const page =
      'llamacpp:requests_processing 2\r\nllamacpp:requests_deferred 1\r\nllamacpp:kv_cache_usage_ratio 0.125\r\n';
    expect(parse(page)).toEqual({ running: 2, waiting: 1, kvUsage: 0.125, kvCapacity: 0 });
  });
});

describe('of what is missing or broken', () => {
  test('whatever is there is taken', () => {
    const nothing = { running: 0, waiting: 0, kvUsage: 0, kvCapacity: 0 };
    expect(parse('vllm:num_requests_waiting 6')).toEqual({ ...nothing, waiting: 6 });
  });

  test.each([
    ['an empty page', ''],
    ['a page for people', '<html><body>not found</body></html>'],
    ['metrics of somebody else', 'node_load1 0.5\nup 1\n'],
    ['comments alone', '# TYPE vllm:num_requests_running gauge\n'],
    ['a name without a value', 'vllm:num_requests_running\nvllm:num_requests_running{a="b"}\n'],
    ['labels that do not end', 'vllm:num_requests_running{a="b" 5\n'],
    ['no number', 'vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n'],
    ['a count below zero', 'vllm:num_requests_running -5\n'],
    ['a cache of no size', 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1\n'],
    ['a name that goes on', 'vllm:num_requests_running2 5\nvllm:num_requests_running.x 5\n'],
    ['a name inside a line', ' vllm:num_requests_running 5\nx vllm:num_requests_running 5\n'],
  ])('%s says nothing', (_, page) => {
    expect(parse(page)).toBeUndefined();
  });

  test('what no engine can have is cut to what can be counted', () => {
    const page = 'vllm:num_requests_running 1e300\nvllm:kv_cache_usage_perc 17\n';
    expect(parse(page)).toMatchObject({ running: 2 ** 31 - 1, kvUsage: 1 });
  });

  test('a line without an end is passed over, and the lines behind it are read', () => {
    const page = `vllm:num_requests_running{a="${'x'.repeat(9000)}"} 5\nvllm:num_requests_waiting 6\n`;
    for (const chunk of [1, 1000, 1e6]) {
      expect(parse(page, chunk)).toMatchObject({ running: 0, waiting: 6 });
    }
  });

  test('a page over the bound says nothing, whatever it began with', () => {
    const fits = vllm + '#'.repeat(engineMetricsBytesMax - bytes(vllm).length);
    expect(parse(fits)).toMatchObject({ running: 12 });
    expect(parse(`${fits}#`)).toBeUndefined();
    const parser = new EngineMetricsParser();
    expect(parser.push(bytes(fits))).toBe(true);
    expect(parser.push(bytes('#'))).toBe(false);
  });

  test('noise of any kind is survived', () => {
    const random = createPrng(seed);
    const parts = ['vllm:', 'num_requests_running', '{', '}', '"', '\n', ' ', '1', 'e', '-', '\0'];
    for (let run = 0; run < 300; run++) {
      const page = Array.from({ length: 200 }, () => parts[random.below(parts.length)]).join('');
      const metrics = parse(page, 1 + random.below(50));
      for (const value of Object.values(metrics ?? {})) {
        expect(Number.isFinite(value) && value >= 0, `SEED=${seed} run ${run}`).toBe(true);
      }
    }
  });
});

test('where the chunks end changes nothing', () => {
  const whole = parse(vllm);
  for (let chunk = 1; chunk < 200; chunk++) expect(parse(vllm, chunk)).toEqual(whole);
});
