/**
 * LoRA adapters of a simulated replica: loaded, listed and given up as vLLM and SGLang do. Pure.
 *
 * vLLM is asked for an adapter by its name, SGLang for `model:adapter`. An adapter is there once the time
 * of its load is over. A path that begins with `/missing` has none.
 */
import { nowMs } from '../lib/clock.ts';
import { type Answer, jsonAnswer, plainAnswer } from './answer.ts';
import type { Body } from './generation.ts';

export interface LoraOptions {
  /** Adapters it holds; 0: it loads none at run time. */
  readonly max: number;
  readonly loadMs: number;
}

interface Adapter {
  readonly engine: 'vllm' | 'sglang';
  readonly path: string;
  readonly readyMs: number;
}

const actions: ReadonlyMap<string, readonly ['vllm' | 'sglang', 'load' | 'unload']> = new Map([
  ['/v1/load_lora_adapter', ['vllm', 'load']],
  ['/v1/unload_lora_adapter', ['vllm', 'unload']],
  ['/load_lora_adapter', ['sglang', 'load']],
  ['/unload_lora_adapter', ['sglang', 'unload']],
]);

export class LoraShelf {
  readonly #options: LoraOptions;
  readonly #adapters = new Map<string, Adapter>();

  constructor(options: LoraOptions) {
    this.#options = options;
  }

  /** `asked` is what a request has as its model, `model` what this replica serves. */
  serves(asked: string, model: string): boolean {
    const isQualified = asked.startsWith(`${model}:`);
    const name = isQualified ? asked.slice(model.length + 1) : asked;
    return this.#has(name) && (this.#adapters.get(name)?.engine === 'sglang') === isQualified;
  }

  #has(name: string): boolean {
    const adapter = this.#adapters.get(name);
    return adapter !== undefined && adapter.readyMs <= nowMs();
  }

  /** Entries of `/v1/models`. */
  models(parent: string): object[] {
    return [...this.#adapters]
      .filter(([name]) => this.#has(name))
      .map(([id, { path }]) => ({
        ...{ id, object: 'model', created: 0, owned_by: 'sluice' },
        ...{ root: path, parent },
      }));
  }

  /** Undefined when `path` is none of its routes, or it loads none at run time. */
  answer(path: string, { lora_name: name, lora_path: from }: Body): Answer | undefined {
    const action = actions.get(path);
    if (action === undefined || this.#options.max === 0) return undefined;
    const [engine, verb] = action;
    const isLoad = verb === 'load';
    const problem = isLoad ? this.#load(engine, name, from) : this.#unload(name);
    const answer = engineAnswer(
      engine,
      problem,
      `LoRA adapter '${name}' ${isLoad ? 'added' : 'removed'}`,
    );
    return isLoad && problem === undefined ? { ...answer, headMs: this.#options.loadMs } : answer;
  }

  #load(engine: Adapter['engine'], name: unknown, path: unknown): Problem | undefined {
    if (typeof name !== 'string' || typeof path !== 'string' || name === '' || path === '') {
      return [400, "Both 'lora_name' and 'lora_path' must be provided."];
    }
    if (this.#adapters.has(name))
      return [400, `The lora adapter '${name}' has already been loaded.`];
    if (path.startsWith('/missing')) return [404, `No adapter found for ${path}`];
    if (this.#adapters.size >= this.#options.max)
      return [400, 'Too many LoRA adapters are loaded.'];
    this.#adapters.set(name, { engine, path, readyMs: nowMs() + this.#options.loadMs });
    return undefined;
  }

  #unload(name: unknown): Problem | undefined {
    if (this.#adapters.delete(String(name))) return undefined;
    return [404, `The lora adapter '${name}' cannot be found.`];
  }
}

type Problem = readonly [status: number, message: string];

function engineAnswer(
  engine: 'vllm' | 'sglang',
  problem: Problem | undefined,
  done: string,
): Answer {
  if (engine === 'sglang') {
    const [, message] = problem ?? [];
    return jsonAnswer(problem === undefined ? 200 : 400, {
      success: problem === undefined,
      ...(message === undefined ? {} : { error_message: message }),
    });
  }
  if (problem === undefined)
    return plainAnswer(200, 'text/plain', `Success: ${done} successfully.`);
  const [status, message] = problem;
  const type = status === 404 ? 'NotFoundError' : 'InvalidUserInput';
  return jsonAnswer(status, { error: { message, type, param: null, code: status } });
}
