/**
 * How engines are asked for adapters: what they have, to load one, to give one up. Main thread.
 *
 *   vLLM    POST /v1/load_lora_adapter, /v1/unload_lora_adapter   `{"lora_name","lora_path"}`
 *   SGLang  POST /load_lora_adapter, /unload_lora_adapter         the same, answers `{"success"}`
 *   both    GET  /v1/models                                       an adapter is a model of its own
 */
import { Agent, request } from 'undici';
import { replicaLookup } from '../forwarder/replica-lookup.ts';
import { urlAt } from '../protocol/replica-base.ts';
import type { Member } from './membership.ts';

export type LoraEngine = 'vllm' | 'sglang';

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
    const { status, text } = await this.#ask(member, '/v1/models', listTimeoutMs);
    if (status !== 200) throw new Error(reasonOf(status, text));
    const page = parse(text) as { data?: unknown };
    if (!Array.isArray(page?.data)) throw new Error('/v1/models is no list');
    return new Set(page.data.map((entry: { id?: unknown } | null) => String(entry?.id)));
  }

  /** Rejects with the reason that it is not loaded; fine when it was loaded already. */
  async load(
    member: Member,
    engine: LoraEngine,
    { name, path }: { readonly name: string; readonly path: string },
    timeoutMs: number,
  ): Promise<void> {
    const body = { lora_name: name, lora_path: path };
    const answer = await this.#ask(member, routes[engine].load, timeoutMs, body);
    if (isDone(answer) || /already (?:been )?(?:loaded|added)/i.test(answer.text)) return;
    throw new Error(reasonOf(answer.status, answer.text));
  }

  /** Rejects with the reason that it may still be there; fine when it was not. */
  async unload(member: Member, engine: LoraEngine, name: string, timeoutMs: number): Promise<void> {
    const answer = await this.#ask(member, routes[engine].unload, timeoutMs, { lora_name: name });
    const isGone = answer.status === 404 || /not (?:be )?(?:found|loaded|exist)/i.test(answer.text);
    if (!isDone(answer) && !isGone) throw new Error(reasonOf(answer.status, answer.text));
  }

  async #ask(member: Member, path: string, timeoutMs: number, body?: object) {
    const expired = AbortSignal.timeout(timeoutMs);
    try {
      const answer = await request(urlAt(member.url, path), {
        dispatcher: this.#agent,
        method: body === undefined ? 'GET' : 'POST',
        signal: AbortSignal.any([expired, this.#closed.signal]),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        headers: {
          ...(member.apiKey === '' ? {} : { authorization: `Bearer ${member.apiKey}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: answer.statusCode, text: await readText(answer.body) };
    } catch (error) {
      if (expired.aborted) throw new Error(`no answer within ${timeoutMs} ms`);
      throw error;
    }
  }
}

const routes = {
  vllm: { load: '/v1/load_lora_adapter', unload: '/v1/unload_lora_adapter' },
  sglang: { load: '/load_lora_adapter', unload: '/unload_lora_adapter' },
} as const;

interface EngineAnswer {
  readonly status: number;
  readonly text: string;
}

const isDone = ({ status, text }: EngineAnswer): boolean =>
  status === 200 && (parse(text) as { success?: unknown } | undefined)?.success !== false;

const reasonOf = (status: number, text: string): string =>
  `answered ${status}: ${text.slice(0, reasonLength)}`;

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  // Leaving the loop destroys the body.
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > answerBytesMax) throw new Error('the answer is too large');
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
