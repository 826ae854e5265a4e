/**
 * What is wrong with a config, and where.
 *
 * Pure; any thread; types and text only. A message never carries a value of the file: it might be a
 * secret, or come from one through a reference.
 */
export interface Problem {
  readonly file: string;
  /** Line and column count from 1; both are 0 when the config did not come from a text. */
  readonly line: number;
  readonly col: number;
  /** Keys and indexes joined by dots; empty for the whole file. */
  readonly path: string;
  readonly message: string;
  /** The key or value that was probably meant. */
  readonly hint: string | undefined;
}

export type ConfigPath = readonly (string | number)[];

/** `FILE:line:col path: message (did you mean "x"?)`. */
export function formatProblem(problem: Problem): string {
  const { file, line, col, path, message, hint } = problem;
  const where = line > 0 ? `${file}:${line}:${col}` : file;
  const place = path === '' ? where : `${where} ${path}`;
  return `${place}: ${message}${hint === undefined ? '' : ` (did you mean "${hint}"?)`}`;
}

/** A path as text: bounded, and without bytes that could steer a terminal. */
export function pathText(path: ConfigPath): string {
  return path.map((step) => printable(String(step))).join('.');
}

function printable(text: string): string {
  const cut = text.length > 64 ? `${text.slice(0, 64)}…` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '?');
}
