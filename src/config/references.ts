/**
 * References in scalars: `${VAR}`, `${VAR:-default}`, `${file:PATH}`; `$${` is a literal `${`.
 *
 * Pure apart from the injected reader; runs at load and reload. Only text that is a YAML scalar
 * already is expanded, never the file as a whole, so a value can add neither keys nor lines, and what
 * a reference yields is not expanded again. Messages name the variable or the file, never the value.
 */
const variablePattern = /^([A-Za-z_][A-Za-z0-9_]*)(?::-([\s\S]*))?$/;

/** A secret file is a line or a token; a larger one is the wrong file. */
const fileLengthMax = 65_536;

/** Far above any honest scalar; bounds what many references in one scalar can add up to. */
const expandedLengthMax = 262_144;

export interface ReferenceSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Reads a file named in a reference; throws when it cannot. */
  readonly readFile: (path: string) => string;
}

export interface Expanded {
  readonly text: string;
  readonly problems: readonly string[];
}

export function hasReference(text: string): boolean {
  return text.includes('${');
}

/** Replaces every reference of one scalar; all problems of the scalar are returned at once. */
export function expandReferences(text: string, sources: ReferenceSources): Expanded {
  const problems: string[] = [];
  let expanded = '';
  let from = 0;
  for (;;) {
    const dollar = text.indexOf('${', from);
    if (dollar < 0) break;
    if (text[dollar - 1] === '$' && dollar > from) {
      expanded += `${text.slice(from, dollar - 1)}\${`;
      from = dollar + 2;
      continue;
    }
    const end = text.indexOf('}', dollar);
    if (end < 0) {
      problems.push('has a reference without its closing brace');
      break;
    }
    const value = resolve(text.slice(dollar + 2, end), sources, problems);
    expanded += text.slice(from, dollar) + value;
    from = end + 1;
    if (expanded.length > expandedLengthMax) {
      return { text: '', problems: [`expands to more than ${expandedLengthMax} characters`] };
    }
  }
  return { text: expanded + text.slice(from), problems };
}

function resolve(reference: string, sources: ReferenceSources, problems: string[]): string {
  if (reference.startsWith('file:')) {
    return readSecret(reference.slice('file:'.length), sources, problems);
  }
  const match = variablePattern.exec(reference);
  const [, name = '', fallback] = match ?? [];
  if (match === null) {
    problems.push('has a reference that names neither a variable nor a file');
    return '';
  }
  const value = Object.hasOwn(sources.env, name) ? sources.env[name] : undefined;
  // As in a shell, `:-` also replaces an empty variable.
  if (fallback !== undefined) return value === undefined || value === '' ? fallback : value;
  if (value === undefined)
    problems.push(`needs the environment variable ${name}, which is not set`);
  return value ?? '';
}

function readSecret(path: string, sources: ReferenceSources, problems: string[]): string {
  if (path === '') {
    problems.push('has a file reference without a path');
    return '';
  }
  let content: string;
  try {
    content = sources.readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'error';
    problems.push(`needs the file ${path}, which cannot be read (${code})`);
    return '';
  }
  if (content.length > fileLengthMax) {
    problems.push(`needs the file ${path}, which is larger than ${fileLengthMax} bytes`);
    return '';
  }
  return content.replace(/\r?\n$/, ''); // editors and `echo` end a file with one newline
}
