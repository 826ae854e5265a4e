/**
 * The tokenizers of test/fixtures/tokenizers as an operator has them: a folder of files. What is written goes
 * with `removeTokenizers`.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { TokenizerFiles } from '../../src/shm/token-tasks.ts';
import { readTokenizerFiles } from '../../src/tokenizer/files.ts';
import { ModelTokenizer } from '../../src/tokenizer/model-tokenizer.ts';

const fixtures = resolve(import.meta.dirname, '../fixtures/tokenizers');
export const publicTokenizers = ['gpt2', 'yi'] as const;
export type PublicTokenizer = (typeof publicTokenizers)[number];

export interface Reference {
  readonly cases: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly long: { readonly chars: number; readonly count: number; readonly sha256: string };
}

/** ChatML, as the chat models of Yi and Qwen have it. */
export const chatMl =
  "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const folders: string[] = [];

/** A folder of its own; `template` is written beside the tokenizer, '' none. */
export function tokenizerFolder(name: PublicTokenizer, template = chatMl): string {
  const folder = mkdtempSync(join(tmpdir(), `sluice-${name}-`));
  folders.push(folder);
  writeTokenizer(folder, name);
  if (template !== '') writeFileSync(join(folder, 'chat_template.jinja'), template);
  return folder;
}

/** In place of what is there. */
export function writeTokenizer(folder: string, name: PublicTokenizer): void {
  const packed = readFileSync(join(fixtures, name, 'tokenizer.json.gz'));
  writeFileSync(join(folder, 'tokenizer.json'), gunzipSync(packed));
  const config = 'tokenizer_config.json';
  copyFileSync(join(fixtures, name, config), join(folder, config));
}

/** As a thread of the pool does with what the main thread has read. */
export const loadTokenizer = (files: TokenizerFiles): ModelTokenizer =>
  new ModelTokenizer(readTokenizerFiles(files));

export function removeTokenizers(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

export function referenceOf(name: PublicTokenizer): Reference {
  return JSON.parse(readFileSync(join(fixtures, name, 'reference.json'), 'utf8')) as Reference;
}

export const longText = ({ cases }: Reference): string =>
  `${cases.map(({ text }) => text).join(' ')}\n`.repeat(40);
