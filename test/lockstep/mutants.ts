/**
 * Mutants of a source text: each atomic operation removed, made plain, split, moved or given a wrong
 * operand. The text is formatted by Biome, so a statement starts on a line of its own and ends with the
 * next line of the same indent that ends with `;` or `}`.
 *
 * Left out because they are the same program: a swap with a neighbour that neither touches shared memory,
 * nor leaves the block, nor names what the atomic statement names; a swap that reads a name before its
 * declaration does not run and is left out as well.
 */
export interface Mutant {
  readonly line: number;
  readonly what: string;
  readonly text: string;
}

interface Statement {
  /** Index of the first line, and of the line after the last. */
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

export function mutantsOf(source: string): Mutant[] {
  const lines = source.split('\n');
  const mutants: Mutant[] = [];
  const offsets = lineOffsets(lines);
  for (const match of source.matchAll(/\bAtomics\.(\w+)\(/g)) {
    const line = offsets.findLastIndex((offset) => offset <= match.index);
    if (/^\s*(\/\/|\*|\/\*)/.test(lines[line]!)) continue;
    const end = closing(source, match.index + match[0].length - 1);
    const call = source.slice(match.index, end + 1);
    const args = splitArguments(call.slice(match[0].length, -1));
    const add = (what: string, text: string): void => {
      if (text !== source && !mutants.some((other) => other.text === text)) {
        mutants.push({ line: line + 1, what: `${match[1]}: ${what}`, text });
      }
    };
    const replace = (what: string, by: string): void =>
      add(what, source.slice(0, match.index) + by + source.slice(end + 1));
    replaceCall(match[1]!, args, replace);
    const statement = statementAt(lines, line);
    removeStatement(lines, statement, match[1]!, add);
    for (const [what, by] of wrongOperands(statement.text)) {
      add(what, withLines(lines, statement.from, statement.to, by));
    }
    swaps(lines, statement, add);
  }
  return mutants;
}

function replaceCall(
  op: string,
  [array, index, a, b]: string[],
  replace: (what: string, by: string) => void,
): void {
  const cell = `${array}[${index}]`;
  if (op === 'load') replace('plain', `${cell}!`);
  if (op === 'store') replace('plain', `(${cell} = ${a})`);
  if (op !== 'compareExchange') return;
  replace('plain', `(${cell} === ${a} ? ((${cell} = ${b}), ${a}) : ${cell}!)`);
  replace('removed, as if it had succeeded', `(${a})`);
  const at = `Atomics.load(${array}, ${index})`;
  const set = `Atomics.store(${array}, ${index}, ${b})`;
  replace('split', `((seen) => (seen === ${a} && ${set}, seen))(${at})`);
  replace('stored without a look', `(${set}, ${a})`);
}

/** A statement that is the call, an assignment of it, or an early return on it. */
function removeStatement(
  lines: string[],
  { from, to, text }: Statement,
  op: string,
  add: (what: string, text: string) => void,
): void {
  const isAlone = new RegExp(`^\\s*(this\\.#?\\w+ = )?Atomics\\.${op}\\([\\s\\S]*\\);`).test(text);
  const isEarlyReturn = /^\s*if \([\s\S]*\) (return|continue)\b[^;]*;/.test(text);
  if (isAlone || isEarlyReturn) add('removed', withLines(lines, from, to, ''));
}

function wrongOperands(text: string): [string, string][] {
  const patterns = [/ \+ 1\b/g, / - 1\b/g, / \+ this\.capacity\b/g];
  return patterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map((match): [string, string] => [
      `without "${match[0].trim()}"`,
      text.slice(0, match.index) + text.slice(match.index + match[0].length),
    ]),
  );
}

function swaps(
  lines: string[],
  statement: Statement,
  add: (what: string, text: string) => void,
): void {
  const next = skipComments(lines, statement.to, 1);
  const after = next < lines.length ? statementAt(lines, next) : undefined;
  const beforeEnd = skipComments(lines, statement.from - 1, -1);
  const before = statementEndingAt(lines, beforeEnd);
  if (after !== undefined && isNeighbour(lines, statement, after)) {
    add('after its neighbour', exchanged(lines, statement, after));
  }
  if (before !== undefined && isNeighbour(lines, statement, before)) {
    add('before its neighbour', exchanged(lines, before, statement));
  }
}

function isNeighbour(lines: string[], statement: Statement, other: Statement): boolean {
  if (
    other.text.trim() === '' ||
    indentOf(lines[other.from]!) !== indentOf(lines[statement.from]!)
  ) {
    return false;
  }
  for (const [one, two] of [
    [statement.text, other.text],
    [other.text, statement.text],
  ] as const) {
    const declared = /^\s*(?:const|let) (\w+)/.exec(one)?.[1];
    if (declared !== undefined && new RegExp(`\\b${declared}\\b`).test(two)) return false;
  }
  const isSeen = /Atomics|words|\breturn\b|\bcontinue\b|this\.#?\w+\(/.test(other.text);
  const assigned = /^\s*(this\.#?\w+)(?: =|\+\+)/.exec(other.text)?.[1];
  return isSeen || (assigned !== undefined && statement.text.includes(assigned));
}

function exchanged(lines: string[], first: Statement, second: Statement): string {
  const between = lines.slice(first.to, second.from);
  return [
    ...lines.slice(0, first.from),
    ...lines.slice(second.from, second.to),
    ...between,
    ...lines.slice(first.from, first.to),
    ...lines.slice(second.to),
  ].join('\n');
}

const indentOf = (line: string): number => line.length - line.trimStart().length;
const isEnd = (line: string): boolean => /[;}]\s*(\/\/.*)?$/.test(line);
const opensBlock = (line: string): boolean => /[{]\s*(\/\/.*)?$/.test(line);

/** The smallest statement that the line is part of. */
function statementAt(lines: string[], line: number): Statement {
  for (let from = line; from >= 0; from--) {
    const indent = indentOf(lines[from]!);
    if (from !== line && indent >= indentOf(lines[line]!)) continue;
    let to = from;
    while (to < lines.length && !(indentOf(lines[to]!) === indent && isEnd(lines[to]!))) to++;
    if (to >= line && to < lines.length)
      return { from, to: to + 1, text: lines.slice(from, to + 1).join('\n') };
  }
  throw new Error(`no statement at line ${line + 1}`);
}

function statementEndingAt(lines: string[], last: number): Statement | undefined {
  if (last < 0 || !isEnd(lines[last]!) || opensBlock(lines[last]!)) return undefined;
  const indent = indentOf(lines[last]!);
  let from = last;
  const isTail = (line: string): boolean => /^[\s)}\]]/.test(line.trimStart()[0] ?? ' ');
  while (from > 0 && (indentOf(lines[from]!) > indent || isTail(lines[from]!))) from--;
  return { from, to: last + 1, text: lines.slice(from, last + 1).join('\n') };
}

function skipComments(lines: string[], line: number, step: number): number {
  let at = line;
  while (at >= 0 && at < lines.length - 1 && /^\s*\/\//.test(lines[at]!)) at += step;
  return at;
}

const withLines = (lines: string[], from: number, to: number, text: string): string =>
  [...lines.slice(0, from), text, ...lines.slice(to)].join('\n');

function lineOffsets(lines: string[]): number[] {
  let next = 0;
  return lines.map((line) => {
    const offset = next;
    next += line.length + 1;
    return offset;
  });
}

/** Index of the parenthesis that closes the one at `open`. */
function closing(source: string, open: number): number {
  let depth = 0;
  for (let at = open; at < source.length; at++) {
    if (source[at] === '(') depth++;
    if (source[at] === ')' && --depth === 0) return at;
  }
  throw new Error('unbalanced parentheses');
}

function splitArguments(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = '';
  for (const char of text) {
    if ('([{'.includes(char)) depth++;
    if (')]}'.includes(char)) depth--;
    if (char === ',' && depth === 0) {
      parts.push(part.trim());
      part = '';
    } else part += char;
  }
  if (part.trim() !== '') parts.push(part.trim());
  return parts;
}
