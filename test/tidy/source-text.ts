/**
 * Reading TypeScript source well enough to judge it: comments and strings told apart, imports listed.
 *
 * A lexer, not a parser: the TypeScript 7 compiler has no API in JavaScript to ask.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface SourceFile {
  /** Relative to the root of the repository, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

export interface ImportedModule {
  readonly specifier: string;
  readonly line: number;
  /** Erased when types are stripped. */
  readonly typeOnly: boolean;
}

const root = resolve(import.meta.dirname, '../..');

/** Every TypeScript file under the given folders. */
export function readSources(...folders: readonly string[]): SourceFile[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .sort()
      .map((name) => {
        const path = `${folder}/${name.replaceAll('\\', '/')}`;
        return { path, text: readFileSync(join(root, path), 'utf8') };
      }),
  );
}

/** The text with comments, and if asked the insides of strings, replaced by spaces; lines stay. */
export function codeOf(text: string, strings: 'keep' | 'blank'): string {
  const out = text.split('');
  const blank = (from: number, to: number): void => {
    for (let i = from; i < to; i++) if (out[i] !== '\n') out[i] = ' ';
  };
  /** For each open `${`, the braces opened inside it. */
  const templates: number[] = [];
  let at = 0;
  const skipTemplate = (from: number): number => {
    let i = from;
    while (i < text.length && text[i] !== '`') {
      if (text.startsWith('${', i)) {
        templates.push(0);
        if (strings === 'blank') blank(from, i);
        return i + 2;
      }
      i += text[i] === '\\' ? 2 : 1;
    }
    if (strings === 'blank') blank(from, i);
    return i + 1;
  };
  while (at < text.length) {
    const char = text[at] as string;
    const next = text[at + 1];
    const depth = templates.at(-1);
    if (char === '/' && (next === '/' || next === '*')) {
      const end = next === '/' ? text.indexOf('\n', at) : text.indexOf('*/', at + 2) + 2;
      const to = end <= 1 ? text.length : end;
      blank(at, to);
      at = to;
    } else if (char === '/' && startsRegExp(text, at)) {
      const end = regExpEnd(text, at);
      blank(at + 1, end - 1);
      at = end;
    } else if (char === "'" || char === '"') {
      const end = stringEnd(text, at);
      if (strings === 'blank') blank(at + 1, end - 1);
      at = end;
    } else if (char === '`') {
      at = skipTemplate(at + 1);
    } else if (char === '}' && depth === 0) {
      templates.pop();
      at = skipTemplate(at + 1);
    } else {
      if (depth !== undefined && char === '{') templates[templates.length - 1] = depth + 1;
      if (depth !== undefined && char === '}') templates[templates.length - 1] = depth - 1;
      at++;
    }
  }
  return out.join('');
}

const importPatterns = [
  /\b(?:import|export)\s+(type\s)?[^'"`;()]*?\bfrom\s*(['"])([^'"\n]+)\2/g,
  /\bimport\s+()(['"])([^'"\n]+)\2/g,
  /\b(?:import|require)\s*\(()\s*(['"`])([^'"`\n]+)\2/g,
  /\bnew URL\(()\s*(['"`])(\.[^'"`\n]+)\2\s*,\s*import\.meta\.url/g,
];

/** Static, dynamic and type imports, requires, and worker entries by URL; resolving loads nothing. */
export function importsOf(text: string): ImportedModule[] {
  const code = codeOf(text, 'keep');
  const plain = codeOf(text, 'blank');
  return importPatterns.flatMap((pattern) =>
    [...code.matchAll(pattern)]
      // An import quoted inside a string is text: its keyword is blank in the other reading.
      .filter((match) => plain[match.index] === code[match.index])
      .map((match) => ({
        specifier: match[3] as string,
        line: lineAt(text, match.index),
        typeOnly: match[1] !== undefined && match[1] !== '',
      })),
  );
}

export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length;
}

function startsRegExp(text: string, at: number): boolean {
  const before = text.slice(0, at).trimEnd();
  return /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of))$/.test(before.slice(-8));
}

function regExpEnd(text: string, start: number): number {
  let inClass = false;
  for (let i = start + 1; i < text.length; i++) {
    const char = text[i];
    if (char === '\\') i++;
    else if (char === '\n') return i;
    else if (char === '[') inClass = true;
    else if (char === ']') inClass = false;
    else if (char === '/' && !inClass) return i + 1;
  }
  return text.length;
}

function stringEnd(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const char = text[i];
    if (char === '\\') i++;
    else if (char === text[start] || char === '\n') return i + 1;
  }
  return text.length;
}
