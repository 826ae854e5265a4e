/**
 * From a text, an object or command line flags to a complete, frozen config, or to all that is wrong.
 *
 * Main thread, at start and reload; synchronous, pure apart from the injected environment and reader.
 * Nothing is thrown for a bad config: the problems are the result.
 */
import { dirname, resolve } from 'node:path';
import { ConfigDocument, type Place } from './document.ts';
import { type Finding, findingsOf, valueAt } from './issues.ts';
import { messageOf } from './messages.ts';
import { type ConfigPath, type Problem, pathText } from './problems.ts';
import type { ReferenceSources } from './references.ts';
import { type Config, type ConfigInput, ConfigSchema, type ModelConfig } from './schema.ts';
import { type SchemaValue, schemaValues } from './schema-tree.ts';
import { configuredSinks } from './sinks.ts';
import { warningsOf } from './warnings.ts';

export type LoadResult =
  | {
      readonly ok: true;
      readonly config: Config;
      readonly warnings: readonly Problem[];
      /** A problem that shows only where the config is used. */
      readonly problemAt: (path: ConfigPath, message: string) => Problem;
    }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** More would only hide the first; also bounds the work a hostile file can ask for. */
const problemsMax = 100;

const nowhere: Place = { line: 0, col: 0 };

/** Loads the text of a config file; paths in it are relative to the folder of `filename`. */
export function loadConfig(
  text: string,
  filename: string,
  env: ReferenceSources['env'],
  readFile: ReferenceSources['readFile'],
): LoadResult {
  const absolute = (path: string): string => resolve(dirname(filename), path);
  const sources = { env, readFile: (path: string) => readFile(absolute(path)) };
  const document = new ConfigDocument(text, sources);
  const unread = document.problems.map((p) => ({ file: filename, hint: undefined, ...p }));
  if (document.value === undefined && unread.length > 0) return { ok: false, problems: unread };
  const value = document.value ?? {}; // an empty file: every required key is missing
  const parsed = parseTyped(value, document);
  if (!parsed.success || unread.length > 0) {
    const place = ({ path, key }: Finding): Place =>
      key === undefined ? document.placeOf(path) : document.placeOfKey(path, key);
    const unreadPaths = new Set(unread.map(({ path }) => path));
    const invalid = problemsOf(parsed.error?.issues ?? [], value, filename, place);
    const problems = [...unread, ...invalid.filter(({ path }) => !unreadPaths.has(path))];
    return { ok: false, problems: problems.toSorted((a, b) => a.line - b.line || a.col - b.col) };
  }
  const problemAt = (path: ConfigPath, message: string): Problem => ({
    file: filename,
    ...document.placeOf(path),
    path: pathText(path),
    message,
    hint: undefined,
  });
  const config = withAbsoluteFiles(parsed.data, absolute);
  const unreadable = tlsProblems(config, readFile, problemAt);
  if (unreadable.length > 0) return { ok: false, problems: unreadable };
  const idle = warningsOf(config, value).map(([path, message]) => problemAt(path, message));
  const secrets = literalSecrets(value, document, problemAt);
  const warnings = [...secrets, ...idle].toSorted((a, b) => a.line - b.line || a.col - b.col);
  return { ok: true, config: freeze(config), warnings, problemAt };
}

/** Loads a config given as an object, as programs and tests do. Nothing in it is expanded. */
export function configFromObject(input: ConfigInput, name = 'config'): LoadResult {
  const parsed = ConfigSchema.safeParse(input, { error: messageOf });
  if (parsed.success) {
    const problemAt = (path: ConfigPath, message: string): Problem => ({
      ...{ file: name, ...nowhere, path: pathText(path), message, hint: undefined },
    });
    const config = freeze(parsed.data);
    const warnings = warningsOf(config, input).map(([path, message]) => problemAt(path, message));
    return { ok: true, config, warnings, problemAt };
  }
  return { ok: false, problems: problemsOf(parsed.error.issues, input, name, () => nowhere) };
}

/** The config of `--replica URL … --model NAME`: one model, every other key at its default. */
export function configFromFlags(flags: {
  readonly replicas: readonly string[];
  readonly model: string;
}): LoadResult {
  const replicas = flags.replicas.map((url) => ({ url }));
  return configFromObject({ models: [{ name: flags.model, replicas }] }, 'command line');
}

/** Parses, giving what a reference yielded the type of its key: `port: "${PORT}"` is a number. */
function parseTyped(value: object, document: ConfigDocument) {
  const first = ConfigSchema.safeParse(value, { error: messageOf });
  let retyped = false;
  for (const issue of first.error?.issues ?? []) {
    const path = issue.path as ConfigPath;
    if (issue.code !== 'invalid_type' || !document.isReference(path)) continue;
    const typed = typedScalar(valueAt(value, path), issue.expected);
    const parent = valueAt(value, path.slice(0, -1));
    const key = path.at(-1);
    if (typed === undefined || key === undefined) continue;
    (parent as Record<string | number, unknown>)[key] = typed;
    retyped = true;
  }
  return retyped ? ConfigSchema.safeParse(value, { error: messageOf }) : first;
}

function typedScalar(text: unknown, expected: string): number | boolean | undefined {
  if (typeof text !== 'string') return undefined;
  if (expected === 'boolean') return { true: true, false: false }[text];
  const isNumeric = expected === 'number' || expected === 'int';
  return isNumeric && /^-?\d{1,15}(\.\d{1,15})?$/.test(text) ? Number(text) : undefined;
}

function problemsOf(
  issues: readonly Parameters<typeof findingsOf>[0][],
  value: unknown,
  file: string,
  placeOf: (finding: Finding) => Place,
): readonly Problem[] {
  const findings = issues.slice(0, problemsMax).flatMap((issue) => findingsOf(issue, value));
  return findings.slice(0, problemsMax).map((finding) => ({
    file,
    ...placeOf(finding),
    path: pathText(finding.key === undefined ? finding.path : [...finding.path, finding.key]),
    message: finding.message,
    hint: finding.hint,
  }));
}

const tlsFiles = ['cert', 'key', 'ca'] as const;
type TlsFiles = { readonly [K in (typeof tlsFiles)[number]]?: string | undefined };

function withAbsoluteFiles(config: Config, absolute: (path: string) => string): Config {
  const { admin, listen, usage } = config;
  const withTls = <T extends { readonly tls?: TlsFiles | undefined }>(section: T): T => {
    const { tls } = section;
    if (tls === undefined) return section;
    const files = tlsFiles.flatMap((key) => (tls[key] ? [[key, absolute(tls[key])]] : []));
    return { ...section, tls: { ...tls, ...Object.fromEntries(files) } };
  };
  const ofFile = (path: string): string => (path === '' ? '' : absolute(path));
  const sinks = configuredSinks(usage).map((name) => [name, withTls(usage[name] as WithTls)]);
  const ofUsage = { ...usage, file: ofFile(usage.file), ...Object.fromEntries(sinks) };
  const ofAdmin = { ...admin, audit_log: ofFile(admin.audit_log) };
  const models = config.models.map(withAbsoluteTokenizer(absolute));
  return { ...config, models, admin: ofAdmin, usage: ofUsage, listen: withTls(listen) };
}

interface WithTls {
  readonly tls?: TlsFiles | undefined;
}

const withAbsoluteTokenizer =
  (absolute: (path: string) => string) =>
  (model: ModelConfig): ModelConfig => {
    const { tokenizer } = model;
    if (tokenizer === undefined) return model;
    const { file, chat_template: template } = tokenizer;
    const own = template === undefined ? {} : { chat_template: absolute(template) };
    return { ...model, tokenizer: { file: absolute(file), ...own } };
  };

function tlsProblems(
  config: Config,
  readFile: ReferenceSources['readFile'],
  problemAt: (path: ConfigPath, message: string) => Problem,
): readonly Problem[] {
  const { listen, usage } = config;
  const sections: (readonly [ConfigPath, WithTls | undefined])[] = [
    [['listen'], listen],
    ...configuredSinks(usage).map((name) => [['usage', name], usage[name]] as const),
  ];
  return sections.flatMap(([path, section]) =>
    tlsFiles.flatMap((key) => {
      const name = section?.tls?.[key];
      if (name === undefined) return [];
      const at = [...path, 'tls', key];
      try {
        if (readFile(name).includes('-----BEGIN ')) return [];
        return [problemAt(at, 'must name a PEM file')];
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code ?? 'error';
        return [problemAt(at, `names a file that cannot be read (${code})`)];
      }
    }),
  );
}

function literalSecrets(
  value: unknown,
  document: ConfigDocument,
  problemAt: (path: ConfigPath, message: string) => Problem,
): readonly Problem[] {
  return [...schemaValues(value)]
    .flatMap((at) => (at.path.at(-1) === 'headers' ? secretHeaders(at) : [at]))
    .filter(({ node, value }) => node.writeOnly === true && value !== '')
    .filter(({ value }) => !isPlainUrl(value))
    .filter(({ path }) => !document.isReference(path))
    .map(({ path }) =>
      problemAt(path, 'is a secret in the file; refer to a variable or a file instead'),
    );
}

/** Any of them may be a secret, and those are whose names say so. */
function secretHeaders({ value, path }: SchemaValue): readonly SchemaValue[] {
  return Object.entries(value as object)
    .filter(([name]) => /authorization|cookie|key|password|secret|token/i.test(name))
    .map(([name, text]) => ({ node: { writeOnly: true }, value: text, path: [...path, name] }));
}

/** A URL may carry a password, and mostly does not. */
function isPlainUrl(value: unknown): boolean {
  const url = typeof value === 'string' ? URL.parse(value) : null;
  return url !== null && url.host !== '' && url.username === '' && url.password === '';
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const child of Object.values(value)) freeze(child);
    Object.freeze(value);
  }
  return value;
}
