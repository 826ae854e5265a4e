/** Rules on single files: size, header, printing, skipped tests, atomics, field words. */
import { codeOf, lineAt, type SourceFile } from './source-text.ts';

const linesMax = 400;
const headerLinesMax = 12;

export interface SourceRule {
  readonly name: string;
  readonly applies: RegExp;
  check(file: SourceFile): string[];
}

export const sourceRules: readonly SourceRule[] = [
  {
    name: `a file has at most ${linesMax} lines`,
    applies: /./,
    check({ path, text }) {
      const count = text.replace(/\n$/, '').split('\n').length;
      return count > linesMax ? [`${path} has ${count} lines`] : [];
    },
  },
  {
    name: `a file opens with a comment of at most ${headerLinesMax} lines of text`,
    applies: /^(src|scripts|native-free-bench)\//,
    check({ path, text }) {
      const header = /^(?:#!.*\n)?\/\*\*([\s\S]*?)\*\//.exec(text)?.[1];
      if (header === undefined) return [`${path} has no header comment`];
      const count = header.split('\n').filter((line) => /[^\s*]/.test(line)).length;
      return count > headerLinesMax ? [`${path} has a header of ${count} lines`] : [];
    },
  },
  {
    name: 'only commands and scripts print with console',
    applies: /^src\/(?!cli\/|main\.ts)/,
    check: (file) => matches(file, /\bconsole\s*\.\s*\w+/g, 'prints with console'),
  },
  {
    name: 'no test is alone, and a test left out says why',
    applies: /^test\//,
    check(file) {
      const lines = file.text.split('\n');
      const only = matches(file, /\b(?:it|test|describe|suite)(?:\.\w+)*\.only\b/g, 'runs alone');
      const skipped = /\b(?:it|test|describe|suite)(?:\.\w+)*\.(?:skip|todo)\b/g;
      const left = [...codeOf(file.text, 'blank').matchAll(skipped)]
        .map((match) => lineAt(file.text, match.index))
        .filter((line) => ![lines[line - 2], lines[line - 1]].some((l) => /\/\/ *\w/.test(l ?? '')))
        .map((line) => `${file.path}:${line} leaves a test out without a comment that says why`);
      return [...only, ...left];
    },
  },
  {
    // The lock-step tests replace the global object's methods.
    name: 'atomics are called through the global',
    applies: /^src\/(?!shm\/fault-hooks\.ts)/,
    check: (file) => [
      ...matches(file, /\bAtomics\b(?!\s*\.)/g, 'takes Atomics apart or renames it'),
      ...matches(file, /\bAtomics\s*\.\s*\w+\b(?!\s*\()/g, 'takes a method off Atomics'),
    ],
  },
  {
    name: 'only the scheduler blocks in Atomics.wait',
    applies: /^src\/(?!scheduler\/|shm\/doorbell\.ts|shm\/fault-hooks\.ts)/,
    check: (file) => matches(file, /\bAtomics\s*\.\s*wait\s*\(/g, 'blocks in Atomics.wait'),
  },
  {
    name: 'the remote server is a replica, never a backend',
    applies: /^src\//,
    check: (file) => matches(file, /\bbackends?\b/gi, 'says backend', file.text),
  },
];

export function ruleViolations(files: readonly SourceFile[], rule: SourceRule): string[] {
  return files.filter(({ path }) => rule.applies.test(path)).flatMap((file) => rule.check(file));
}

function matches(
  file: SourceFile,
  pattern: RegExp,
  what: string,
  code = codeOf(file.text, 'blank'),
): string[] {
  return [...code.matchAll(pattern)].map(
    (match) => `${file.path}:${lineAt(file.text, match.index)} ${what}`,
  );
}
