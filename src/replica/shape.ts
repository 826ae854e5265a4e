/**
 * What the four generation APIs have in common: the parts of an answer, in the byte form of wireText.
 *
 * open() + delta() of every step and choice + close() is the stream; whole() is the answer without
 * one. A shape is made for one request. Pure.
 */
import type { Choice, Generation } from './generation.ts';
import { wireText } from './http-writer.ts';
import { tokenId, tokensText, tokenText } from './tokens.ts';

export interface Shape {
  /** Events before the first token. */
  open(): string;
  /** Events of the token at `step` of a choice; `last` when the choice ends with it. */
  delta(choice: number, step: number, text: string, last: boolean): string;
  /** Events after the last token. */
  close(): string;
  whole(texts: readonly string[]): string;
}

/** Text of one step: a token, or what is left of the first one. Empty when the choice has none. */
export function stepText(choice: Choice, step: number): string {
  if (step >= choice.length) return '';
  const text = tokenText(choice.series, choice.start + step);
  return wireText(step === 0 && choice.partial > 0 ? text.slice(choice.partial) : text);
}

export function choiceText(choice: Choice): string {
  const text = tokensText(choice.series, choice.start, choice.start + choice.length);
  return wireText(choice.partial > 0 ? text.slice(choice.partial) : text);
}

export function choiceTokenIds(choice: Choice): number[] {
  return Array.from({ length: choice.length }, (_, i) => tokenId(choice.series, choice.start + i));
}

/** A field that says so of an answer of low confidence, with its comma. */
export const unsureJson = ({ isUnsure }: Generation): string =>
  isUnsure ? '"low_confidence":true,' : '';

/** The tokens of a choice with their logprobs, as chats and responses have them. */
export function logprobsJson({ logprob }: Generation, choice: Choice): string {
  if (logprob === undefined) return '[]';
  const tokens = Array.from({ length: choice.length }, (_, step) => stepText(choice, step));
  return `[${tokens.map((token) => `{"token":"${token}","logprob":${logprob},"bytes":null,"top_logprobs":[]}`).join()}]`;
}

/** Tokens of all choices up to and including `step`. */
export function tokensThrough(generation: Generation, step: number): number {
  let tokens = 0;
  for (const choice of generation.choices) tokens += Math.min(choice.length, step + 1);
  return tokens;
}

/** Tokens of the whole answer. */
export function tokensOf(generation: Generation): number {
  return tokensThrough(generation, generation.steps);
}

/** `usage` of the OpenAI completion APIs, as JSON. */
export function usageJson(generation: Generation, completion: number): string {
  const prompt = generation.promptTokens;
  const details = cachedJson(generation, 'prompt_tokens_details');
  return `{"prompt_tokens":${prompt},"completion_tokens":${completion},"total_tokens":${prompt + completion}${details}}`;
}

/** The tokens that the prefix cache saved, as a further field `name` of a usage object. */
export function cachedJson({ cached }: Generation, name: string): string {
  return cached === undefined ? '' : `,"${name}":{"cached_tokens":${cached.tokens}}`;
}
