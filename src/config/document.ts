/**
 * A config text as a tree of plain values that still knows its lines.
 *
 * Pure apart from the injected sources; runs at load and reload. The text is hostile: its size, its
 * depth and the work of its aliases are bounded, and the messages of the YAML library, which quote
 * the text, are replaced by our own.
 */
import {
  type Document,
  type ErrorCode,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type Scalar,
  visit,
} from 'yaml';
import { type ConfigPath, pathText } from './problems.ts';
import { expandReferences, hasReference, type ReferenceSources } from './references.ts';

/** Ten thousand tenants with a few keys each. */
const textLengthMax = 8 * 1024 * 1024;
const aliasCountMax = 100;
const problemsMax = 100;

export interface Place {
  readonly line: number;
  readonly col: number;
}
export interface TextProblem extends Place {
  readonly path: string;
  readonly message: string;
}

const syntaxMessages: Readonly<Record<ErrorCode, string>> = {
  ALIAS_PROPS: 'an alias can have neither a tag nor an anchor',
  BAD_ALIAS: 'this alias has no anchor before it',
  BAD_COLLECTION_TYPE: 'this tag does not fit the kind of value',
  BAD_DIRECTIVE: 'this directive is not known',
  BAD_DQ_ESCAPE: 'this escape is not allowed in a double-quoted text',
  BAD_INDENT: 'the indentation does not fit the lines above, or a bracket is not closed',
  BAD_PROP_ORDER: 'anchors and tags must come after the indicator',
  BAD_SCALAR_START: 'a value cannot start with this character; quote it',
  BLOCK_AS_IMPLICIT_KEY: 'a block cannot be a key; is a line indented too far?',
  BLOCK_IN_FLOW: 'a block cannot stand inside { } or [ ]',
  DUPLICATE_KEY: 'this key is given twice',
  IMPOSSIBLE: 'this cannot be read as YAML',
  KEY_OVER_1024_CHARS: 'a key must have at most 1024 characters',
  MISSING_CHAR: 'a comma, colon, quote, bracket or space is missing here',
  MULTILINE_IMPLICIT_KEY: 'a key must be on one line; is a colon or a quote missing?',
  MULTIPLE_ANCHORS: 'a value can have only one anchor',
  MULTIPLE_DOCS: 'the file must hold one document',
  MULTIPLE_TAGS: 'a value can have only one tag',
  NON_STRING_KEY: 'a key must be text',
  RESOURCE_EXHAUSTION: 'the nesting is too deep',
  TAB_AS_INDENT: 'tabs cannot indent',
  TAG_RESOLVE_FAILED: 'this tag is not known',
  UNEXPECTED_TOKEN: 'this is not expected here; is a quote, bracket or indentation wrong?',
};

/** One parsed text: its value with references expanded, its problems, and where each path stands. */
export class ConfigDocument {
  readonly problems: readonly TextProblem[];
  /** `undefined` when the text cannot be read at all, and when it is empty. */
  readonly value: unknown;
  readonly #document: Document.Parsed | undefined;
  readonly #lines = new LineCounter();
  /** Scalars that held a reference; their values must not be taken for what the author typed. */
  readonly #referencing = new Set<Scalar>();

  constructor(text: string, sources: ReferenceSources) {
    const problems: TextProblem[] = [];
    this.problems = problems;
    if (text.length > textLengthMax) {
      const message = `the file is larger than ${textLengthMax} characters`;
      problems.push({ line: 1, col: 1, path: '', message });
      return;
    }
    const document = parseDocument(text, {
      lineCounter: this.#lines,
      prettyErrors: false,
      logLevel: 'error', // 'silent' would also hide a second document
      stringKeys: true,
      uniqueKeys: false, // the library compares every pair of keys; ours is linear
      version: '1.2',
    });
    this.#document = document;
    // One mistake often makes many errors at its place; the first says it.
    for (const { code, pos } of [...document.errors, ...document.warnings]) {
      const place = this.#placeOf(pos[0]);
      if (problems.length >= problemsMax) break;
      if (problems.some(({ line, col }) => line === place.line && col === place.col)) continue;
      problems.push({ ...place, path: '', message: syntaxMessages[code] });
    }
    if (problems.length > 0) return;
    this.#findRepeatedKeys(document, problems);
    this.#findLooseAliases(document, problems);
    if (problems.length > 0) return;
    this.#expand(document, sources, problems);
    this.value = this.#toValue(document, problems);
  }

  /** The place of a path, or of the nearest thing around it that is in the text. */
  placeOf(path: ConfigPath): Place {
    return this.#walk(path).place;
  }

  /** The place of a key itself rather than of its value. */
  placeOfKey(path: ConfigPath, key: string): Place {
    const { node, place } = this.#walk(path);
    return (isMap(node) && this.#keyPlace(findPair(node.items as Pair[], key))) || place;
  }

  /** Whether the value at this path was made from a reference. */
  isReference(path: ConfigPath): boolean {
    const { node, whole } = this.#walk(path);
    return whole && isScalar(node) && this.#referencing.has(node);
  }

  #expand(document: Document.Parsed, sources: ReferenceSources, problems: TextProblem[]): void {
    visit(document, {
      Scalar: (key, node, ancestors) => {
        if (key === 'key' || typeof node.value !== 'string') return undefined;
        if (!hasReference(node.value)) return undefined;
        const expanded = expandReferences(node.value, sources);
        node.value = expanded.text;
        this.#referencing.add(node);
        for (const message of expanded.problems) {
          const path = pathText(pathOf(node, ancestors));
          problems.push({ ...this.#placeOf(node.range?.[0] ?? 0), path, message });
        }
        return problems.length < problemsMax ? undefined : visit.BREAK;
      },
    });
  }

  #findRepeatedKeys(document: Document.Parsed, problems: TextProblem[]): void {
    visit(document, {
      Map: (_, { items }) => {
        const seen = new Set<unknown>();
        for (const { key } of items) {
          const name = isScalar(key) ? key.value : key;
          const place = this.#placeOf((key as Node).range?.[0] ?? 0);
          if (seen.has(name) && problems.length < problemsMax) {
            problems.push({ ...place, path: '', message: syntaxMessages.DUPLICATE_KEY });
          }
          seen.add(name);
        }
      },
    });
  }

  #findLooseAliases(document: Document.Parsed, problems: TextProblem[]): void {
    visit(document, {
      Alias: (_, node) => {
        if (node.resolve(document) !== undefined) return undefined;
        const place = this.#placeOf(node.range?.[0] ?? 0);
        problems.push({ ...place, path: '', message: syntaxMessages.BAD_ALIAS });
        return visit.BREAK;
      },
    });
  }

  #toValue(document: Document.Parsed, problems: TextProblem[]): unknown {
    try {
      return document.toJS({ maxAliasCount: aliasCountMax });
    } catch (error) {
      if (!(error instanceof ReferenceError)) throw error;
      const message = `an alias holds itself, or aliases repeat more than ${aliasCountMax} values`;
      problems.push({ line: 1, col: 1, path: '', message });
      return undefined;
    }
  }

  /** Follows a path as far as the text has it. */
  #walk(path: ConfigPath): { node: Node | null; place: Place; whole: boolean } {
    let node: Node | null = this.#target(this.#document?.contents ?? null);
    let place = node?.range ? this.#placeOf(node.range[0]) : { line: 1, col: 1 };
    for (const step of path) {
      const pair = isMap(node) ? findPair(node.items as Pair[], String(step)) : undefined;
      const item = isSeq(node) && typeof step === 'number' ? node.items[step] : pair?.value;
      if (pair === undefined && item === undefined) return { node, place, whole: false };
      // A key says more than the `{` after it; a scalar's own place says more than its key.
      const own = (item as Node | null)?.range;
      const scalar = isScalar(item) || isSeq(node);
      place = (!scalar && this.#keyPlace(pair)) || (own ? this.#placeOf(own[0]) : place);
      node = this.#target((item ?? null) as Node | null);
    }
    return { node, place, whole: true };
  }

  #target(node: Node | null): Node | null {
    if (!isAlias(node) || this.#document === undefined) return node;
    return (node.resolve(this.#document) as Node | undefined) ?? null;
  }

  #keyPlace(pair: Pair | undefined): Place | undefined {
    const range = (pair?.key as Node | undefined)?.range;
    return range ? this.#placeOf(range[0]) : undefined;
  }

  #placeOf(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(1, line), col: Math.max(1, col) };
  }
}

function findPair(pairs: readonly Pair[], key: string): Pair | undefined {
  return pairs.find((pair) => isScalar(pair.key) && String(pair.key.value) === key);
}

function pathOf(node: Node, ancestors: readonly unknown[]): ConfigPath {
  return ancestors.flatMap((ancestor, index): (string | number)[] => {
    if (isPair(ancestor)) return [String((ancestor.key as Scalar).value)];
    if (isSeq(ancestor)) return [ancestor.items.indexOf(ancestors[index + 1] ?? node)];
    return [];
  });
}
