/**
 * How many prompts the `prompt` of a completion holds: a text or a list of token ids is one, a list of
 * texts or of id lists is as many. Pure; the value has been validated by the request scanner.
 */
import { closeBracket, comma, openBracket, quote, skipSpace, skipString } from './json-skip.ts';

/** More choices than any engine gives; keeps n x prompts far from overflow. */
const promptsMax = 65_536;

export function countPrompts(bytes: Uint8Array, start: number, end: number): number {
  if (bytes[start] !== openBracket) return 1;
  let p = skipSpace(bytes, start + 1, end);
  const first = bytes[p];
  if (first !== quote && first !== openBracket) return 1;
  let count = 1;
  let depth = 0;
  while (p < end && p >= 0) {
    const c = bytes[p] as number;
    if (c === quote) {
      p = skipString(bytes, p + 1, end);
      continue;
    }
    if (c === openBracket) depth++;
    else if (c === closeBracket) depth--;
    else if (c === comma && depth === 0) count++;
    p++;
  }
  return Math.min(count, promptsMax);
}
