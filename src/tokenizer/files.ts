/**
 * The files of one tokenizer: tokenizer.json, and beside it tokenizer_config.json and the chat template. The
 * main thread reads them, at start and reload, and blocks for that time; threads of the pool parse them.
 *
 * A file that is missing, too large or not what it should be is a TokenizerFileError that names it; its
 * content is in no message.
 */
import { readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { TokenizerFiles, TokenizerTexts } from '../shm/token-tasks.ts';

export class TokenizerFileError extends Error {
  override name = 'TokenizerFileError';
}

export interface TokenizerSource {
  readonly tokenizer: TokenizerJson;
  readonly config: Readonly<Record<string, unknown>>;
  /** '' without one. */
  readonly template: string;
}

/** What is looked at of a tokenizer.json; the library reads the rest. */
export interface TokenizerJson {
  readonly model: { readonly type?: string; readonly vocab: object };
  readonly added_tokens?: readonly AddedToken[];
}

interface AddedToken {
  readonly content: string;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly single_word?: boolean;
}

const configName = 'tokenizer_config.json';

/** The largest in use have 35 MB. */
const bytesMax = 256 * 1024 * 1024;

export function readTokenizerFiles(named: TokenizerFiles): TokenizerTexts {
  const { file, chatTemplate } = named;
  const path = isFolder(file) ? join(file, 'tokenizer.json') : file;
  const bytes = read(path);
  const tokenizer = new SharedArrayBuffer(bytes.length);
  new Uint8Array(tokenizer).set(bytes);
  const config = readOptional(join(dirname(path), configName));
  const template =
    chatTemplate === ''
      ? readOptional(join(dirname(path), 'chat_template.jinja'))
      : read(chatTemplate).toString();
  return { files: { file: path, chatTemplate }, tokenizer, config, template };
}

export function parseTokenizer(texts: TokenizerTexts): TokenizerSource {
  const { file: path } = texts.files;
  const tokenizer = parseObject(path, Buffer.from(texts.tokenizer).toString());
  if (!isTokenizer(tokenizer)) {
    throw new TokenizerFileError(`${path} is no tokenizer.json: it has no model with a vocabulary`);
  }
  const configPath = join(dirname(path), configName);
  const config = texts.config === null ? {} : parseObject(configPath, texts.config);
  return { tokenizer, config, template: texts.template ?? templateOf(config) };
}

/** What tokenizer_config.json has; '' for none. */
function templateOf({ chat_template: own }: Readonly<Record<string, unknown>>): string {
  if (typeof own === 'string') return own;
  if (!Array.isArray(own)) return '';
  const templates = own as { readonly name?: unknown; readonly template?: unknown }[];
  const template = templates.find(({ name }) => name === 'default')?.template;
  return typeof template === 'string' ? template : '';
}

function isTokenizer(value: object): value is TokenizerJson {
  const { model, added_tokens: added } = value as Partial<TokenizerJson>;
  const hasVocabulary = typeof model === 'object' && typeof model?.vocab === 'object';
  return hasVocabulary && (added === undefined || Array.isArray(added));
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function readOptional(path: string): string | null {
  return statSync(path, { throwIfNoEntry: false }) === undefined ? null : read(path).toString();
}

function read(path: string): Buffer {
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw new TokenizerFileError(`${path} is no file`);
    if (stat.size > bytesMax) throw new TokenizerFileError(`${path} is larger than 256 MiB`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof TokenizerFileError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? 'error';
    throw new TokenizerFileError(`${path} cannot be read (${code})`);
  }
}

function parseObject(path: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new TokenizerFileError(`${basename(path)} is not JSON: ${path}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw new TokenizerFileError(`${basename(path)} is no JSON object: ${path}`);
}
