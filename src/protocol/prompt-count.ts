/**
 * How many prompts a `prompt` or an `input` holds: a text or a list of token ids is one, a list of texts, of
 * id lists or of objects is as many. Pure; the value has been validated by the request scanner.
 */
import {
  closeBrace,
  closeBracket,
  comma,
  openBrace,
  openBracket,
  quote,
  skipSpace,
  skipString,
} from './json-skip.ts';

/** More choices than any engine gives; keeps n x prompts far from overflow. */
const promptsMax = 65_536;

export function countPrompts(bytes: Uint8Array, start: number, end: number): number {
  if (start === end || bytes[start] !== openBracket) return 1;
  let p = skipSpace(bytes, start + 1, end);
  const first = bytes[p];
  if (first !== quote && first !== openBracket && first !== openBrace) return 1;
  let count = 1;
  let depth = 0;
  while (p < end && p >= 0) {
    const c = bytes[p] as number;
    if (c === quote) {
      p = skipString(bytes, p + 1, end);
      continue;
    }
    if (c === openBracket || c === openBrace) depth++;
    else if (c === closeBracket || c === closeBrace) depth--;
    else if (c === comma && depth === 0) count++;
    p++;
  }
  return Math.min(count, promptsMax);
}
