/**
 * The tokenizer and the chat template of one model. Threads of the pool; CPU-bound, no I/O after the load.
 *
 * A count ends early once it is over `room`, and gives up at its deadline, which it looks at between two
 * pieces (pieces.ts). What it says of a prompt within `room` is exact; where cuts are not exact and the sum is
 * so near to `room` that they could matter, the text is read once more as a whole.
 */
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';
import { nowMs } from '../lib/clock.ts';
import type { TokenizerTexts } from '../shm/token-tasks.ts';
import type { Chat } from './chat.ts';
import { parseTokenizer, TokenizerFileError } from './files.ts';
import { cutsAreExact, type Piece, pieceFrom } from './pieces.ts';

/** Tokens that one cut may add or take away. */
const cutTokensMax = 4;
const lateCount = -1;

export interface Count {
  /** Below 0: the deadline passed. */
  readonly tokens: number;
  /** The text has been read to its end. */
  readonly isWhole: boolean;
}

export class ModelTokenizer {
  /** The template reads lists of parts (vLLM: content format `openai`). */
  readonly keepsParts: boolean;
  readonly #tokenizer: Tokenizer;
  readonly #template: Template | undefined;
  /** What a template may name: bos_token and the like. */
  readonly #named: Readonly<Record<string, string>>;
  readonly #isCutExact: boolean;
  /** What the post-processor puts around a text. */
  readonly #before: readonly number[];
  readonly #after: readonly number[];
  readonly #piece: Piece = { end: 0, isClean: true };

  /** Throws a TokenizerFileError that names the file. */
  constructor(texts: TokenizerTexts) {
    const { tokenizer, config, template } = parseTokenizer(texts);
    const { file, chatTemplate } = texts.files;
    try {
      this.#tokenizer = new Tokenizer(tokenizer, config);
      const bare = this.#encode('a');
      const full: number[] = this.#tokenizer.encode('a').ids;
      const at = full.findIndex((_, i) => bare.every((id, k) => full[i + k] === id));
      this.#before = full.slice(0, Math.max(0, at));
      this.#after = at < 0 ? [] : full.slice(at + bare.length);
      this.#isCutExact = cutsAreExact(tokenizer, (text) => this.#encode(text));
    } catch (error) {
      throw new TokenizerFileError(`${file} cannot be used: ${(error as Error).message}`);
    }
    this.#template = template === '' ? undefined : parsed(template, chatTemplate || file);
    this.keepsParts = /\bin\s+\w+(\.content|\[['"]content['"]\])/.test(template);
    this.#named = namedTokens(config);
  }

  /** The prompt that the model is given; undefined without a template, or where it refuses the chat. */
  render({ messages, tools }: Chat, more: Readonly<Record<string, unknown>>): string | undefined {
    try {
      return this.#template?.render({ ...more, ...this.#named, messages, tools });
    } catch {
      return undefined;
    }
  }

  /** Ids of the whole text; undefined when the deadline passed. */
  ids(text: string, withSpecial: boolean, deadlineMs: number): number[] | undefined {
    const ids = withSpecial ? [...this.#before] : [];
    for (let start = 0; start < text.length; ) {
      if (nowMs() > deadlineMs) return undefined;
      if (this.#isCutExact) pieceFrom(text, start, this.#piece);
      const isPiece = this.#isCutExact && this.#piece.isClean;
      const end = isPiece ? this.#piece.end : text.length;
      for (const id of this.#encode(text.slice(start, end))) ids.push(id);
      start = end;
    }
    if (withSpecial) for (const id of this.#after) ids.push(id);
    return ids;
  }

  count(text: string, withSpecial: boolean, room: number, deadlineMs: number): Count {
    const special = withSpecial ? this.#before.length + this.#after.length : 0;
    const piece = this.#piece;
    let tokens = special;
    let slack = 0;
    for (let start = 0; start < text.length; start = piece.end) {
      if (nowMs() > deadlineMs) return { tokens: lateCount, isWhole: false };
      pieceFrom(text, start, piece);
      tokens += this.#encode(text.slice(start, piece.end)).length;
      const isLast = piece.end === text.length;
      if (!isLast && !(this.#isCutExact && piece.isClean)) slack += cutTokensMax;
      if (tokens - slack > room && !isLast) return { tokens, isWhole: false };
    }
    if (Math.abs(tokens - room) > slack) return { tokens, isWhole: true };
    if (slack > 0) tokens = special + this.#encode(text).length;
    return { tokens, isWhole: true };
  }

  tokenOf(id: number): string {
    return this.#tokenizer.id_to_token(id) ?? '';
  }

  #encode(text: string): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }
}

function parsed(template: string, path: string): Template {
  try {
    return new Template(template);
  } catch (error) {
    const reason = (error as Error).message.slice(0, 200);
    throw new TokenizerFileError(`the chat template of ${path} cannot be parsed: ${reason}`);
  }
}

/** Special tokens of tokenizer_config.json: texts, or objects with one. */
function namedTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const named: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith('_token')) continue;
    const text = (value as { content?: unknown } | null)?.content ?? value;
    if (typeof text === 'string') named[key] = text;
  }
  return named;
}
