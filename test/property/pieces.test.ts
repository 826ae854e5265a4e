/** Pieces of a text: all of it, in order, none too long, no character in two. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Piece, pieceFrom } from '../../src/tokenizer/pieces.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

function piecesOf(text: string): { text: string; isClean: boolean }[] {
  const piece: Piece = { end: 0, isClean: true };
  const pieces: { text: string; isClean: boolean }[] = [];
  for (let start = 0; start < text.length; start = piece.end) {
    pieceFrom(text, start, piece);
    expect(piece.end).toBeGreaterThan(start);
    pieces.push({ text: text.slice(start, piece.end), isClean: piece.isClean });
  }
  return pieces;
}

test('whatever the text, its pieces are it', () => {
  const part = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.constantFrom(' ', '  ', '\n', '😀', 'word ', '你好', '\ud800'),
  );
  const run = fc.tuple(part, fc.integer({ min: 1, max: 4000 }));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 6 }), (runs) => {
      const text = runs.map(([each, times]) => each.repeat(times)).join('');
      const pieces = piecesOf(text);
      expect(pieces.map((piece) => piece.text).join('')).toBe(text);
      for (const [index, piece] of pieces.entries()) {
        expect(piece.text.length).toBeLessThanOrEqual(65_536);
        const next = pieces[index + 1]?.text ?? ' ';
        const splits = /[\ud800-\udbff]$/.test(piece.text) && /^[\udc00-\udfff]/.test(next);
        expect(splits, 'a pair is in two pieces').toBe(false);
        if (piece.isClean && index + 1 < pieces.length) {
          expect(piece.text).toMatch(/[!-~]$/);
          expect(next[0]).toBe(' ');
        }
      }
    }),
    { seed, numRuns: 60 },
  );
  process.stdout.write(`SEED=${seed}\n`);
});

test('a short text is one piece', () => {
  expect(piecesOf('a b c')).toEqual([{ text: 'a b c', isClean: true }]);
});

test('a text without a place for a cut is cut all the same', () => {
  const pieces = piecesOf('😀'.repeat(70_000));
  expect(pieces.length).toBe(3);
  expect(pieces.map(({ isClean }) => isClean)).toEqual([false, false, true]);
});
