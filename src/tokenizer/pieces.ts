/**
 * A text in pieces that a tokenizer reads one after the other: its time is then bounded between two looks at
 * the clock, and a tokenizer without a pre-tokenizer is many times faster on them. Pure.
 *
 * A clean cut stands before a space behind a visible ASCII character. Where `cutsAreExact` the ids of the
 * pieces are those of the whole: no token of the vocabulary reaches over such a place, so no merge does, and
 * texts that try what normalizer and pre-tokenizer do there come out alike. Any other cut may change a few
 * tokens around it.
 */
import type { TokenizerJson } from './files.ts';

/** Where a piece may end. Shorter ones are no faster, longer ones cost a tokenizer without a pre-tokenizer dearly. */
const pieceCharsMin = 512;
/** A text without a place for a cut is cut here: 0.4 s of the slowest tokenizer measured. */
const pieceCharsMax = 65_536;

export interface Piece {
  end: number;
  /** It ends in a clean cut, or the text does. */
  isClean: boolean;
}

const cleanCut = /[!-~](?= )/g;

/** Where the piece that begins at `start` ends. */
export function pieceFrom(text: string, start: number, piece: Piece): void {
  piece.isClean = true;
  piece.end = text.length;
  if (text.length - start <= 2 * pieceCharsMin) return;
  cleanCut.lastIndex = start + pieceCharsMin;
  const found = cleanCut.exec(text);
  const end = found === null ? text.length : found.index + 1;
  if (end - start <= pieceCharsMax) {
    piece.end = end;
    return;
  }
  piece.isClean = false;
  piece.end = start + pieceCharsMax;
  const isHalf = (text.charCodeAt(piece.end - 1) & 0xfc00) === 0xd800; // of a surrogate pair
  if (isHalf) piece.end--;
}

type Encode = (text: string) => readonly number[];

export function cutsAreExact({ model, added_tokens: added = [] }: TokenizerJson, encode: Encode) {
  if (model.type !== 'BPE') return false;
  // A space is itself, or what byte-level and SentencePiece vocabularies write for it.
  for (const token of Object.keys(model.vocab)) if (/[!-~][ Ġ▁]/.test(token)) return false;
  for (const { content, lstrip, rstrip, single_word: isWord } of added) {
    if (lstrip || rstrip || isWord || /[!-~] /.test(content)) return false;
  }
  return probes.every(([before, after]) => {
    const whole = encode(before + after);
    const parts = [...encode(before), ...encode(after)];
    return whole.length === parts.length && whole.every((id, index) => id === parts[index]);
  });
}

const visible = Array.from({ length: 94 }, (_, i) => String.fromCharCode(0x21 + i));
/** Every kind of character that stands before a cut, and of what may follow it. */
const probes: readonly (readonly [before: string, after: string])[] = [
  ...visible.map((c) => [`He said 12${c}`, ' and then'] as const),
  ...visible.map((c) => [`\n\tx${c}${c}`, ` ${c}y  z`] as const),
  ...[
    ' ',
    '  ',
    '   x',
    ' \n',
    ' \n\n x',
    ' 1',
    ' .',
    " 'll",
    ' é',
    ' 你好',
    ' 😀',
    ' \u0301',
    ' \t',
  ].map((after) => ['end', after] as const),
];
