/**
 * The routes beside generation: embeddings, rerank, score, classify, tokenize, media. Pure.
 *
 * Numbers come from checksums of the texts, so that an answer proves which text arrived; media
 * routes answer size and checksum of the bytes they got.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { type Answer, jsonAnswer, plainAnswer } from './answer.ts';
import { type Body, record } from './generation.ts';
import {
  contentText,
  promptTokenCount,
  promptTokenIds,
  renderChat,
  textOfPromptIds,
} from './tokens.ts';

/** Answers a parsed body; a string is a message for a 400. */
export type SideRoute = (body: Body) => Answer | string;

const EMBEDDING_DIMENSIONS = 8;
const MAX_MODEL_LEN = 131_072;

export const SIDE_ROUTES: ReadonlyMap<string, SideRoute> = new Map<string, SideRoute>([
  ['/v1/embeddings', embeddings],
  ['/v1/rerank', rerank],
  ['/rerank', rerank],
  ['/v1/score', score],
  ['/v1/classify', classify],
  ['/tokenize', tokenize],
  ['/v1/tokenize', tokenize],
  ['/detokenize', detokenize],
  ['/v1/detokenize', detokenize],
  ['/v1/messages/count_tokens', countTokens],
]);

/** Media routes take bytes of any type; undefined when `path` is none of them. */
export function mediaAnswer(path: string, contentType: string, body: Buffer): Answer | undefined {
  if (path === '/v1/audio/speech') {
    return plainAnswer(200, 'audio/mpeg', body.toString('latin1'));
  }
  const audio = path === '/v1/audio/transcriptions' || path === '/v1/audio/translations';
  if (!audio && !path.startsWith('/v1/images/')) return undefined;
  const sha256 = createHash('sha256').update(body).digest('hex');
  const text = `bytes=${body.length} sha256=${sha256}`;
  const facts = { text, bytes: body.length, sha256, content_type: contentType };
  return jsonAnswer(200, audio ? facts : { created: 0, data: [], ...facts });
}

function embeddings(body: Body): Answer | string {
  const inputs = texts(body.input);
  if (inputs === undefined) return 'input must be a text or a list';
  const base64 = body.encoding_format === 'base64';
  const data = inputs.map((text, index) => {
    const vector = embedding(text);
    const bytes = Buffer.from(vector.buffer);
    return {
      object: 'embedding',
      index,
      embedding: base64 ? bytes.toString('base64') : Array.from(vector),
    };
  });
  return jsonAnswer(200, { object: 'list', model: body.model, data, usage: usage(inputs) });
}

function rerank(body: Body): Answer | string {
  const documents = texts(body.documents);
  if (typeof body.query !== 'string' || documents === undefined) {
    return 'query must be a text and documents a list';
  }
  const query = body.query;
  const results = documents
    .map((text, index) => ({
      index,
      document: { text },
      relevance_score: unit(`${query}\n${text}`),
    }))
    .sort((a, b) => b.relevance_score - a.relevance_score);
  const top = typeof body.top_n === 'number' ? body.top_n : results.length;
  return jsonAnswer(200, {
    model: body.model,
    results: results.slice(0, top),
    usage: { total_tokens: usage([query, ...documents]).total_tokens },
  });
}

function score(body: Body): Answer | string {
  const left = texts(body.text_1);
  const right = texts(body.text_2);
  if (left === undefined || right === undefined) return 'text_1 and text_2 must be texts or lists';
  const data = right.map((text, index) => ({
    index,
    object: 'score',
    score: unit(`${left[left.length === 1 ? 0 : index] ?? ''}\n${text}`),
  }));
  const all = usage([...left, ...right]);
  return jsonAnswer(200, { object: 'list', model: body.model, data, usage: all });
}

function classify(body: Body): Answer | string {
  const inputs = texts(body.input);
  if (inputs === undefined) return 'input must be a text or a list';
  const data = inputs.map((text, index) => {
    const positive = unit(text);
    return {
      index,
      label: positive >= 0.5 ? 'positive' : 'negative',
      probs: [positive, 1 - positive],
      num_classes: 2,
    };
  });
  return jsonAnswer(200, { object: 'list', model: body.model, data, usage: usage(inputs) });
}

function tokenize(body: Body): Answer | string {
  const chat = Array.isArray(body.messages) ? renderChat(body.messages.map(record)) : undefined;
  const text = chat ?? body.prompt;
  if (typeof text !== 'string') return 'prompt must be a text, or messages a list';
  const tokens = promptTokenIds(text);
  return jsonAnswer(200, { count: tokens.length, max_model_len: MAX_MODEL_LEN, tokens });
}

function detokenize(body: Body): Answer | string {
  const ids = body.tokens;
  if (!Array.isArray(ids)) return 'tokens must be a list of token ids';
  const prompt = textOfPromptIds(ids.map(Number));
  return prompt === undefined ? 'tokens holds an unknown id' : jsonAnswer(200, { prompt });
}

function countTokens(body: Body): Answer | string {
  if (!Array.isArray(body.messages)) return 'messages must be a list';
  const system = body.system === undefined ? [] : [{ role: 'system', content: body.system }];
  const text = renderChat([...system, ...body.messages.map(record)]);
  return jsonAnswer(200, { input_tokens: promptTokenCount(text) });
}

/** A text, or a list of texts, of parts or of token ids, as texts. */
function texts(value: unknown): string[] | undefined {
  if (typeof value === 'string') return [value];
  if (!Array.isArray(value) || value.length === 0) return undefined;
  if (typeof value[0] === 'number') return [JSON.stringify(value)];
  return value.map((item) => {
    if (typeof item === 'string') return item;
    return Array.isArray(item) ? JSON.stringify(item) : contentText([item]);
  });
}

function embedding(text: string): Float32Array {
  const vector = new Float32Array(EMBEDDING_DIMENSIONS);
  for (let i = 0; i < vector.length; i++) vector[i] = unit(`${i}\n${text}`) * 2 - 1;
  return vector;
}

/** A number in [0, 1) that depends on every byte of the text. */
function unit(text: string): number {
  return crc32(text) / 2 ** 32;
}

function usage(inputs: readonly string[]): { prompt_tokens: number; total_tokens: number } {
  const tokens = inputs.reduce((sum, text) => sum + promptTokenCount(text), 0);
  return { prompt_tokens: tokens, total_tokens: tokens };
}
