/**
 * What acceptors ask of the tokenizer pool, through the main thread, and what they hear. Types only.
 *
 * A body stays where it is, in the arena; a task names its bytes. Whoever asks may be gone before the pool
 * has read them: then the bytes may be those of another request by that time, and the answer is nobody's.
 */
import type { AnswerShape } from '../protocol/routes.ts';

/** Paths of one tokenizer, absolute. `chatTemplate` '': what lies beside the file. */
export interface TokenizerFiles {
  readonly file: string;
  readonly chatTemplate: string;
}

/**
 * count: tokens of the largest prompt, as far as they matter for `room`. tokenize, count_tokens: the body of
 * an answer, as vLLM and Anthropic give it.
 */
export type TokenWant = 'count' | 'tokenize' | 'count_tokens';

export interface TokenTask {
  readonly want: TokenWant;
  /** Index of the model. */
  readonly model: number;
  /** Of the request that is counted. */
  readonly shape: AnswerShape;
  /** Of the body in the arena. */
  readonly start: number;
  readonly length: number;
  /** A prompt of more tokens need not be counted to its end. */
  readonly room: number;
  /** Told to who asks (`max_model_len`); 0: not known. */
  readonly maxContext: number;
  /** Nobody waits after it (lib/clock.ts). */
  readonly deadlineMs: number;
}

/**
 * Why there is no count. uncountable: the pool does not know how the engine would read this request, or it
 * is too long for an answer of ours. busy: the queue is full. late: the time was over. failed: a worker died, or
 * the tokenizer threw.
 */
export type NoCount = 'uncountable' | 'busy' | 'late' | 'failed';

export type TokenAnswer =
  /** `tokens` of more than `room` may be fewer than there are (`isWhole` false). */
  | { readonly kind: 'count'; readonly tokens: number; readonly isWhole: boolean }
  | { readonly kind: 'body'; readonly body: Uint8Array }
  | { readonly kind: 'none'; readonly reason: NoCount };

/**
 * What the files hold, so that a thread in the place of a dead one reads what that one read, whatever has
 * become of the files. Large ones are shared.
 */
export interface TokenizerTexts {
  readonly files: TokenizerFiles;
  /** UTF-8. */
  readonly tokenizer: SharedArrayBuffer;
  /** null: there is none beside the tokenizer. */
  readonly config: string | null;
  readonly template: string | null;
}

/** What a worker of the pool is given at its start. */
export interface TokenizerStart {
  /** null: it only loads. */
  readonly arena: SharedArrayBuffer | null;
  readonly arenaBytes: number;
  /** By model; null: it has none. */
  readonly texts: readonly (TokenizerTexts | null)[];
}

/** Problems of the files by model; null: it has no tokenizer, or a good one. */
export type LoadReport = readonly (string | null)[];
