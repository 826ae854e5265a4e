/**
 * The requests of a load run: JSON bodies made once from a seed, and the head that carries a unique
 * x-request-id, so that a replica's own counts can show a request served twice or never.
 *
 * Without lengths the body is the classic one: model, prompt "hello", max_tokens 16. With them,
 * prompts are random words; a set of distinct bodies is cycled, because a million different 220 KB
 * prompts would measure the generator. All bytes are ASCII. Pure.
 */
import { assert } from '../lib/assert.ts';
import { createPrng, type Prng } from '../lib/prng.ts';

export interface RequestShape {
  /** Path of the endpoint; decides where the prompt goes. */
  readonly endpoint: string;
  readonly model: string;
  readonly stream: boolean;
  /** Words of prompt; 0 for the classic body. */
  readonly inputTokens: number;
  /** Bytes of prompt; wins over `inputTokens`; 0 for none. */
  readonly promptBytes: number;
  readonly outputTokens: number;
  readonly ignoreEos: boolean;
  readonly seed: number;
}

/** What is written to the socket for one request. `body` is '' when `head` carries it. */
export interface RequestTemplate {
  readonly bodies: readonly RequestBody[];
  /** Estimated prompt tokens, used when the replica reports none. */
  readonly promptTokens: number;
}

export interface RequestBody {
  /** Request line and headers up to the value of x-request-id. */
  readonly beforeId: string;
  /** The rest of the head, with the body when it is small. */
  readonly afterId: string;
  /** A large body, written as it is; undefined when `afterId` has it. */
  readonly large: Buffer | undefined;
}

const variantsMax = 32;
const variantsBytesMax = 32 * 1024 * 1024;
/** Up to here one string per request is cheaper than two writes. */
const inlineBytesMax = 16 * 1024;
/** Words of four letters and a blank: about one token each for common tokenizers. */
const wordBytes = 5;

export function createRequestTemplate(
  shape: RequestShape,
  host: string,
  headers: Readonly<Record<string, string>> = {},
): RequestTemplate {
  assert(shape.outputTokens > 0, 'a request asks for at least one token');
  const prng = createPrng(shape.seed);
  const bytes = shape.promptBytes > 0 ? shape.promptBytes : shape.inputTokens * wordBytes;
  const count =
    bytes === 0 ? 1 : Math.max(1, Math.min(variantsMax, Math.floor(variantsBytesMax / bytes)));
  const bodies = Array.from({ length: count }, () => {
    const prompt = bytes === 0 ? 'hello' : randomWords(bytes, prng);
    return frame(JSON.stringify(payload(shape, prompt)), shape.endpoint, host, headers);
  });
  return { bodies, promptTokens: bytes === 0 ? 1 : Math.ceil(bytes / wordBytes) };
}

function payload(shape: RequestShape, prompt: string): Record<string, unknown> {
  const { model, stream, endpoint } = shape;
  if (endpoint.endsWith('/embeddings')) return { model, input: prompt };
  const body: Record<string, unknown> = { model };
  if (endpoint.endsWith('/completions') && !endpoint.includes('/chat/')) body.prompt = prompt;
  else if (endpoint.endsWith('/responses')) body.input = prompt;
  else body.messages = [{ role: 'user', content: prompt }];
  const limit = endpoint.endsWith('/responses') ? 'max_output_tokens' : 'max_tokens';
  body[limit] = shape.outputTokens;
  if (shape.ignoreEos) body.ignore_eos = true;
  if (!stream) return body;
  body.stream = true;
  if (endpoint.endsWith('/completions')) body.stream_options = { include_usage: true };
  return body;
}

function frame(
  body: string,
  endpoint: string,
  host: string,
  headers: Readonly<Record<string, string>>,
): RequestBody {
  const lines = [`POST ${endpoint} HTTP/1.1`, `host: ${host}`, 'content-type: application/json'];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  lines.push(`content-length: ${Buffer.byteLength(body)}`, 'x-request-id: ');
  const small = body.length <= inlineBytesMax;
  return {
    beforeId: lines.join('\r\n'),
    afterId: small ? `\r\n\r\n${body}` : '\r\n\r\n',
    large: small ? undefined : Buffer.from(body),
  };
}

function randomWords(bytes: number, prng: Prng): string {
  const letters: number[] = new Array(bytes);
  for (let i = 0; i < bytes; i++) letters[i] = i % wordBytes === 4 ? 32 : 97 + prng.below(26);
  return Buffer.from(letters).toString('latin1');
}
