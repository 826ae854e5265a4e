/**
 * How engines are asked for adapters: what they have, to load one, to give one up. Main thread.
 *
 *   vLLM    POST /v1/load_lora_adapter, /v1/unload_lora_adapter   `{"lora_name","lora_path"}`
 *   SGLang  POST /load_lora_adapter, /unload_lora_adapter         the same, answers `{"success"}`
 *   both    GET  /v1/models                                       an adapter is a model of its own
 */
import { Agent, request } from 'undici';
import { KeyMask } from '../forwarder/key-mask.ts';
import { replicaLookup } from '../forwarder/replica-lookup.ts';
import { OwnHeaders } from '../protocol/own-headers.ts';
import { urlAt } from '../protocol/replica-base.ts';
import { type Member, ownHeadersOf } from './membership.ts';

export type LoraEngine = 'vllm' | 'sglang';

export interface LoraLimits {
  readonly timeoutMs: number;
  /** Ends the question before. */
  readonly signal?: AbortSignal;
}

/** The engine has answered that it does not. */
export class LoraRefused extends Error {
  override readonly name = 'LoraRefused';
}

interface EngineAnswer {
  readonly status: number;
  readonly text: string;
}

const routes = {
  vllm: { load: '/v1/load_lora_adapter', unload: '/v1/unload_lora_adapter' },
  sglang: { load: '/load_lora_adapter', unload: '/unload_lora_adapter' },
} as const;
const listPath = '/v1/models';

/** Of an answer as much is read; a list of some thousand models is smaller. */
const answerBytesMax = 1 << 20;
/** Of what an engine says to an operator as much is passed on. */
const reasonLength = 200;
const connectTimeoutMs = 2000;
const listTimeoutMs = 5000;

export class LoraApi {
  readonly #agent = new Agent({ connect: { timeout: connectTimeoutMs, lookup: replicaLookup } });
  readonly #closed = new AbortController();

  /** Ends what is asked at the moment: it rejects. */
  async close(): Promise<void> {
    this.#closed.abort();
    await this.#agent.destroy();
  }

  /** Names of the models and adapters it says it has. Rejects with the reason there is no such list. */
  async list(member: Member): Promise<ReadonlySet<string>> {
    const answer = await this.#ask(member, listPath, { timeoutMs: listTimeoutMs });
    const page = answer.status === 200 ? (parse(answer.text) as { data?: unknown }) : undefined;
    if (!Array.isArray(page?.data)) throw refusalOf(member, answer, listPath);
    return new Set(page.data.map((entry: { id?: unknown } | null) => String(entry?.id)));
  }

  /** Rejects with the reason that it is not loaded; fine when it was loaded already. */
  async load(
    member: Member,
    engine: LoraEngine,
    { name, path }: { readonly name: string; readonly path: string },
    limits: LoraLimits,
  ): Promise<void> {
    const route = routes[engine].load;
    const answer = await this.#ask(member, route, limits, { lora_name: name, lora_path: path });
    if (isDone(answer) || /already (?:been )?(?:loaded|added)/i.test(answer.text)) return;
    throw refusalOf(member, answer, route);
  }

  /** Rejects with the reason that it may still be there; fine when it was not. */
  async unload(
    member: Member,
    engine: LoraEngine,
    name: string,
    limits: LoraLimits,
  ): Promise<void> {
    const route = routes[engine].unload;
    const answer = await this.#ask(member, route, limits, { lora_name: name });
    // Only an answer that names it: a server without the route says `Not Found` as well.
    const isGone = answer.text.includes(name) && /not (?:be )?(?:found|loaded)/i.test(answer.text);
    if (!isDone(answer) && !isGone) throw refusalOf(member, answer, route);
  }

  async #ask(
    member: Member,
    path: string,
    { timeoutMs, signal }: LoraLimits,
    body?: object,
  ): Promise<EngineAnswer> {
    const expired = AbortSignal.timeout(timeoutMs);
    const ends = [expired, this.#closed.signal, ...(signal === undefined ? [] : [signal])];
    try {
      const answer = await request(urlAt(member.url, path), {
        dispatcher: this.#agent,
        method: body === undefined ? 'GET' : 'POST',
        signal: AbortSignal.any(ends),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        headers: [
          ...ownHeadersOf(member),
          ...(body === undefined ? [] : ['content-type', 'application/json']),
        ],
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: answer.statusCode, text: await readText(answer.body) };
    } catch (error) {
      if (expired.aborted) throw new Error(`no answer within ${timeoutMs} ms`);
      throw error;
    }
  }
}

const isDone = ({ status, text }: EngineAnswer): boolean =>
  status === 200 && (parse(text) as { success?: unknown } | undefined)?.success !== false;

/** FastAPI says so where there is no such route: vLLM has it only where adapters are loaded at run time. */
const noRoute = /^\s*\{\s*"detail"\s*:\s*"Not Found"\s*\}\s*$/;

const refusalOf = (member: Member, { status, text }: EngineAnswer, route: string): LoraRefused =>
  new LoraRefused(
    noRoute.test(text)
      ? `has no ${route}: is it started with LoRA, and vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True?`
      : `${route} answered ${status}: ${maskedFor(member, text).slice(0, reasonLength)}`,
  );

/** It is for logs: an engine may repeat the head of the request. */
function maskedFor(member: Member, text: string): string {
  const mask = KeyMask.of(new OwnHeaders(member).secrets);
  if (mask === undefined) return text;
  return Buffer.concat([mask.push(Buffer.from(text)), mask.finish()]).toString();
}

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  // Leaving the loop destroys the body.
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > answerBytesMax) throw new LoraRefused('the answer is too large');
  }
  return Buffer.concat(chunks).toString();
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
