/**
 * What an inference engine says of its load, read from its Prometheus page. Pure.
 *
 * A streaming line parser for the few names that matter, of vLLM, SGLang, TGI and llama.cpp; versions
 * differ in names and leave some out, so whatever is there is taken. Labels are ignored: the counts of
 * the engines of one server add up, their shares are averaged. The page may be anything: it is read up
 * to a bound, lines that are too long or broken are passed over.
 */

export interface EngineMetrics {
  /** Requests it runs and has waiting; 0 when it does not say. */
  readonly running: number;
  readonly waiting: number;
  /** Share of the KV cache in use, 0 to 1; 0 when it does not say. */
  readonly kvUsage: number;
  /** Tokens the KV cache holds; 0 when it does not say. */
  readonly kvCapacity: number;
}

export const engineMetricsBytesMax = 1024 * 1024;
/** The lines that matter are of a few hundred bytes. */
const lineCharsMax = 4096;
const int32Max = 2 ** 31 - 1;

type Meaning = 'running' | 'waiting' | 'kvUsage' | 'kvCapacity' | 'kvBlocks';

const meanings: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ['vllm:num_requests_running', 'running'],
  ['vllm:num_requests_waiting', 'waiting'],
  ['vllm:kv_cache_usage_perc', 'kvUsage'],
  ['vllm:gpu_cache_usage_perc', 'kvUsage'], // before 0.10
  ['vllm:cache_config_info', 'kvBlocks'],
  ['sglang:num_running_reqs', 'running'],
  ['sglang:num_queue_reqs', 'waiting'],
  ['sglang:token_usage', 'kvUsage'],
  ['sglang:max_total_num_tokens', 'kvCapacity'],
  ['tgi_batch_current_size', 'running'],
  ['tgi_queue_size', 'waiting'],
  ['llamacpp:requests_processing', 'running'],
  ['llamacpp:requests_deferred', 'waiting'],
  ['llamacpp:kv_cache_usage_ratio', 'kvUsage'],
]);

export class EngineMetricsParser {
  readonly #decoder = new TextDecoder('latin1');
  readonly #sums = { running: 0, waiting: 0, kvUsage: 0, kvCapacity: 0 };
  readonly #counts = { running: 0, waiting: 0, kvUsage: 0, kvCapacity: 0 };
  /** Names seen of each meaning: a page under two names for one thing must not count it twice. */
  readonly #names = new Map<Meaning, string>();
  #bytes = 0;
  #rest = '';
  #isSkipping = false;

  /** False once the page is larger than the bound: it says nothing then. */
  push(chunk: Uint8Array): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > engineMetricsBytesMax) return false;
    const text = this.#rest + this.#decoder.decode(chunk);
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      this.#endLine(text.slice(from, end));
      from = end + 1;
    }
    const isLong = text.length - from > lineCharsMax;
    this.#isSkipping ||= isLong;
    this.#rest = isLong ? '' : text.slice(from);
    return true;
  }

  /** Undefined: the page was too large or had none of the names. */
  end(): EngineMetrics | undefined {
    this.#endLine(this.#rest);
    this.#rest = '';
    const { running, waiting, kvUsage, kvCapacity } = this.#counts;
    if (this.#bytes > engineMetricsBytesMax) return undefined;
    if (running + waiting + kvUsage + kvCapacity === 0) return undefined;
    const sums = this.#sums;
    return {
      running: Math.min(int32Max, Math.round(sums.running)),
      waiting: Math.min(int32Max, Math.round(sums.waiting)),
      kvUsage: kvUsage === 0 ? 0 : Math.min(1, sums.kvUsage / kvUsage),
      kvCapacity: Math.min(int32Max, Math.round(sums.kvCapacity)),
    };
  }

  #endLine(line: string): void {
    const isWhole = !this.#isSkipping;
    this.#isSkipping = false;
    if (isWhole && line.length <= lineCharsMax) this.#read(line);
  }

  #read(line: string): void {
    const name = /^[^{\s]+/.exec(line)?.[0] ?? '';
    const meaning = meanings.get(name);
    if (meaning === undefined) return;
    // A value of a label may hold a brace; what follows the labels is numbers.
    const labelsEnd = line[name.length] === '{' ? line.lastIndexOf('}') + 1 : name.length;
    const value = numberOf(line.slice(labelsEnd));
    if (labelsEnd < name.length || !(value >= 0 && value < Number.POSITIVE_INFINITY)) return;
    if ((this.#names.get(meaning) ?? name) !== name) return;
    this.#names.set(meaning, name);
    if (meaning === 'kvBlocks') this.#addBlocks(line.slice(name.length, labelsEnd));
    else this.#add(meaning, value);
  }

  #addBlocks(labels: string): void {
    const blockTokens = numberOf(/[{,]block_size="(\d+)"/.exec(labels)?.[1]);
    const blocks = numberOf(/[{,]num_gpu_blocks="(\d+)"/.exec(labels)?.[1]);
    if (blockTokens * blocks > 0) this.#add('kvCapacity', blockTokens * blocks);
  }

  #add(meaning: keyof EngineMetrics, value: number): void {
    this.#sums[meaning] += value;
    this.#counts[meaning]++;
  }
}

/** The number a text begins with, past white space; NaN for none. A timestamp may follow it. */
function numberOf(text: string | undefined): number {
  const digits = /^\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)(?:\s|$)/.exec(text ?? '')?.[1];
  return digits === undefined ? Number.NaN : Number(digits);
}
