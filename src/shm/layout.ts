/**
 * Layouts: every shared word is declared once, with its writer and its meaning.
 *
 * A region is one SharedArrayBuffer. Its first 128-byte line holds magic, version and a hash of the
 * layout's names, so two threads that disagree fail at attach and not in production. Then follow, in
 * the order of declaration:
 *   word      one int32 alone on its line
 *   column    one int32 per element, dense
 *   rows      one record per element; a field whose writer differs from the field before it starts
 *             a new line, so threads that write different fields never share a cache line
 *   cells     one packed record per element (ring cells), int32 only
 *   bytes     raw bytes
 * Int32 indexes count words of an Int32Array over the region, f64 indexes words of a Float64Array.
 */
import { assert } from '../lib/assert.ts';

export const lineBytes = 128;
const lineWords = lineBytes / 4;
const magic = 0x534c5543; // "SLUC"
const layoutVersion = 1;

export interface WordSpec {
  readonly kind: 'word';
  readonly writer: string;
  readonly meaning: string;
}
export interface ColumnSpec {
  readonly kind: 'column';
  readonly writer: string;
  readonly meaning: string;
}
export interface BytesSpec {
  readonly kind: 'bytes';
  readonly writer: string;
  readonly meaning: string;
}
export interface FieldSpec {
  readonly type: 'i32' | 'f64';
  readonly writer: string;
  readonly meaning: string;
  /** Elements of this field in each row; an array field when above 1. */
  readonly length: number;
}
export interface RowsSpec<F extends Record<string, FieldSpec> = Record<string, FieldSpec>> {
  readonly kind: 'rows';
  readonly fields: F;
}
export interface CellsSpec<F extends Record<string, FieldSpec> = Record<string, FieldSpec>> {
  readonly kind: 'cells';
  readonly fields: F;
}
export type RegionSpec = Record<string, WordSpec | ColumnSpec | BytesSpec | RowsSpec | CellsSpec>;

export const word = (writer: string, meaning: string): WordSpec => ({
  kind: 'word',
  writer,
  meaning,
});
export const column = (writer: string, meaning: string): ColumnSpec => ({
  kind: 'column',
  writer,
  meaning,
});
export const bytes = (writer: string, meaning: string): BytesSpec => ({
  kind: 'bytes',
  writer,
  meaning,
});
export const i32 = (writer: string, meaning: string, length = 1): FieldSpec => ({
  type: 'i32',
  writer,
  meaning,
  length,
});
export const f64 = (writer: string, meaning: string, length = 1): FieldSpec => ({
  type: 'f64',
  writer,
  meaning,
  length,
});
export const rows = <F extends Record<string, FieldSpec>>(fields: F): RowsSpec<F> => ({
  kind: 'rows',
  fields,
});
export const cells = <F extends Record<string, FieldSpec>>(fields: F): CellsSpec<F> => ({
  kind: 'cells',
  fields,
});

/**
 * Where a rows or cells element lives. Word index of field `f` of row `r`:
 * `base + r * stride + at.f`; for an f64 field divide that by two (rows start on even words).
 */
export interface RowsPlace<F> {
  readonly base: number;
  readonly stride: number;
  readonly at: { readonly [K in keyof F]: number };
}
/** Int32 index of a word, of a column's first element, or the byte offset of a bytes area. */
export type Place<S> =
  S extends RowsSpec<infer F> ? RowsPlace<F> : S extends CellsSpec<infer F> ? RowsPlace<F> : number;
/** How many elements each column, rows, cells (elements) and bytes (bytes) area has. */
export type Counts<S extends RegionSpec> = {
  readonly [K in keyof S as S[K] extends WordSpec ? never : K]: number;
};
export interface Placed<S extends RegionSpec> {
  readonly bytes: number;
  readonly at: { readonly [K in keyof S]: Place<S[K]> };
}

export interface Layout<S extends RegionSpec> {
  readonly name: string;
  readonly spec: S;
  /** Offsets for the given element counts. The same counts always give the same offsets. */
  place(counts: Counts<S>): Placed<S>;
  /** A stamped, zeroed region; the caller's thread must be the only one that knows it. */
  create(counts: Counts<S>): SharedArrayBuffer;
  /** Throws when `region` was not created by this layout, of this version, with these counts. */
  attach(region: SharedArrayBuffer, counts: Counts<S>): Placed<S>;
}

export function defineLayout<S extends RegionSpec>(name: string, spec: S): Layout<S> {
  const place = (counts: Counts<S>): Placed<S> => placeRegion(spec, counts as never);
  const stamp = (counts: Counts<S>): number => hashText(describe(name, spec, counts as never));
  return {
    name,
    spec,
    place,
    create(counts) {
      const region = new SharedArrayBuffer(place(counts).bytes);
      const header = new Int32Array(region);
      header[0] = magic;
      header[1] = layoutVersion;
      header[2] = stamp(counts);
      return region;
    },
    attach(region, counts) {
      const header = new Int32Array(region, 0, 3);
      const placed = place(counts);
      assert(header[0] === magic, `${name}: not a Sluice region`);
      assert(header[1] === layoutVersion, `${name}: layout version ${header[1]}`);
      assert(header[2] === stamp(counts), `${name}: other layout or other counts`);
      assert(region.byteLength === placed.bytes, `${name}: wrong size`);
      return placed;
    },
  };
}

function placeRegion<S extends RegionSpec>(spec: S, counts: Record<string, number>): Placed<S> {
  const at: Record<string, unknown> = {};
  let next = lineWords; // line 0 is the stamp
  for (const [key, part] of Object.entries(spec)) {
    const count = part.kind === 'word' ? 1 : counts[key];
    assert(Number.isInteger(count) && (count as number) > 0, `${key}: count missing`);
    if (part.kind === 'rows' || part.kind === 'cells') {
      const row = placeRow(part);
      at[key] = { base: next, stride: row.stride, at: row.at };
      next += row.stride * (count as number);
    } else if (part.kind === 'bytes') {
      at[key] = next * 4;
      next += Math.ceil((count as number) / 4);
    } else {
      at[key] = next;
      next += count as number;
    }
    next = roundUp(next, lineWords);
  }
  return { bytes: next * 4, at: at as Placed<S>['at'] };
}

function placeRow(part: RowsSpec | CellsSpec): { stride: number; at: Record<string, number> } {
  const at: Record<string, number> = {};
  let next = 0;
  let writer: string | undefined;
  for (const [key, field] of Object.entries(part.fields)) {
    const wordsEach = field.type === 'f64' ? 2 : 1;
    assert(part.kind === 'rows' || field.type === 'i32', `${key}: cells hold int32 only`);
    if (part.kind === 'rows' && writer !== undefined && writer !== field.writer) {
      next = roundUp(next, lineWords);
    }
    writer = field.writer;
    next = roundUp(next, wordsEach);
    at[key] = next;
    next += wordsEach * field.length;
  }
  return { stride: part.kind === 'rows' ? roundUp(next, lineWords) : next, at };
}

/** The text the stamp is a hash of; also what the memory-map page is drawn from. */
function describe(name: string, spec: RegionSpec, counts: Record<string, number>): string {
  const parts = Object.entries(spec).map(([key, part]) => {
    const fields =
      part.kind === 'rows' || part.kind === 'cells'
        ? Object.entries(part.fields).map(([f, s]) => `${f}:${s.type}:${s.writer}:${s.length}`)
        : [];
    return `${key}:${part.kind}:${counts[key] ?? 1}[${fields.join()}]`;
  });
  return `${name}{${parts.join()}}`;
}

function hashText(text: string): number {
  let hash = 0x811c9dc5; // FNV-1a, 32 bits
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash | 0;
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
