/** Ids and counts against the Rust library, for two public tokenizers, whole and in pieces. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  chatMl,
  loadTokenizer,
  longText,
  publicTokenizers,
  referenceOf,
  removeTokenizers,
  tokenizerFolder,
} from '../support/tokenizers.ts';

afterAll(removeTokenizers);
const never = Number.POSITIVE_INFINITY;
const none = { file: '', chatTemplate: '' };
const readText = (path: string): string => readFileSync(path, 'utf8');

describe.each(publicTokenizers)('%s', (name) => {
  const tokenizer = loadTokenizer({ ...none, file: tokenizerFolder(name) });
  const reference = referenceOf(name);

  test('every text has the ids that the Rust library gives it', () => {
    for (const { text, ids } of reference.cases) {
      expect(tokenizer.ids(text, false, never), JSON.stringify(text)).toEqual(ids);
      const { tokens } = tokenizer.count(text, false, 1e9, never);
      expect(tokens, JSON.stringify(text)).toBe(ids.length);
    }
  });

  test('a long text, which is read in pieces, has them as well', () => {
    const ids = tokenizer.ids(longText(reference), false, never) ?? [];
    expect(ids.length).toBe(reference.long.count);
    const digest = createHash('sha256').update(ids.join(' ')).digest('hex');
    expect(digest).toBe(reference.long.sha256);
  });

  test('the room is exact to the token', () => {
    const { count } = reference.long;
    const text = longText(reference);
    expect(tokenizer.count(text, false, count, never)).toEqual({ tokens: count, isWhole: true });
    expect(tokenizer.count(text, false, count - 1, never).tokens).toBe(count);
  });

  test('what is far over the room is not read to its end', () => {
    const { tokens, isWhole } = tokenizer.count(longText(reference), false, 100, never);
    expect(isWhole).toBe(false);
    expect(tokens).toBeGreaterThan(100);
    expect(tokens).toBeLessThan(2000);
  });

  test('nothing is read after the deadline', () => {
    expect(tokenizer.count('a', false, 100, 0).tokens).toBeLessThan(0);
    expect(tokenizer.ids('a', false, 0)).toBeUndefined();
  });

  test('a text without a space is cut where it must be, and counted whole near the room', () => {
    const text = 'x0'.repeat(70_000);
    const whole = tokenizer.count(text, false, 1e9, never).tokens;
    const exact = tokenizer.ids(text, false, never)?.length ?? 0;
    expect(Math.abs(whole - exact)).toBeLessThanOrEqual(12);
    expect(tokenizer.count(text, false, exact, never)).toEqual({ tokens: exact, isWhole: true });
    expect(tokenizer.count(text, false, exact - 1, never).tokens).toBeGreaterThan(exact - 1);
  });

  test('a chat is what its template makes of it', () => {
    const text = tokenizer.render(
      { messages: [{ role: 'user', content: 'Hi' }], tools: undefined },
      { add_generation_prompt: true },
    );
    const known = reference.cases.find((each) => each.text === text);
    expect(known?.ids.length).toBeGreaterThan(5);
    expect(tokenizer.ids(text ?? '', false, never)).toEqual(known?.ids);
  });
});

test('what a post-processor adds is part of a prompt and of no piece', () => {
  const folder = tokenizerFolder('yi');
  const plain = loadTokenizer({ ...none, file: folder });
  const path = join(folder, 'tokenizer.json');
  const processor = {
    type: 'TemplateProcessing',
    single: [
      { SpecialToken: { id: '<|startoftext|>', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
    ],
    pair: [],
    special_tokens: {
      '<|startoftext|>': { id: '<|startoftext|>', ids: [1], tokens: ['<|startoftext|>'] },
    },
  };
  const json = JSON.parse(readText(path)) as object;
  writeFileSync(path, JSON.stringify({ ...json, post_processor: processor }));
  const tokenizer = loadTokenizer({ ...none, file: path });
  const text = longText(referenceOf('yi'));
  const bare = plain.ids(text, true, never) ?? [];
  expect(tokenizer.ids(text, true, never)).toEqual([1, ...bare]);
  expect(tokenizer.ids(text, false, never)).toEqual(bare);
  expect(tokenizer.count(text, true, 1e9, never).tokens).toBe(bare.length + 1);
});

test('a normalizer that writes before a text makes cuts inexact, and counts stay right near the room', () => {
  const folder = tokenizerFolder('yi');
  const path = join(folder, 'tokenizer.json');
  const json = JSON.parse(readText(path)) as { normalizer: { normalizers: object[] } };
  json.normalizer.normalizers.unshift({ type: 'Prepend', prepend: '▁' });
  writeFileSync(path, JSON.stringify(json));
  const tokenizer = loadTokenizer({ ...none, file: path });
  const text = 'some words of a longer prompt, '.repeat(200);
  const exact = tokenizer.ids(text, false, never)?.length ?? 0;
  expect(tokenizer.count(text, false, exact, never)).toEqual({ tokens: exact, isWhole: true });
  expect(tokenizer.count(text, false, exact - 1, never)).toEqual({ tokens: exact, isWhole: true });
});

describe('files that are no tokenizer', () => {
  const load =
    (file: string, chatTemplate = '') =>
    () =>
      loadTokenizer({ file, chatTemplate });
  const write = (name: string, text: string): string => {
    const folder = tokenizerFolder('gpt2');
    writeFileSync(join(folder, name), text);
    return folder;
  };

  test('each is named, with what is wrong', () => {
    expect(load('/nowhere/tokenizer.json')).toThrow(
      '/nowhere/tokenizer.json cannot be read (ENOENT)',
    );
    expect(load(import.meta.dirname)).toThrow(/\/tokenizer\.json cannot be read \(ENOENT\)/);
    expect(load(write('tokenizer.json', '{"model":'))).toThrow('tokenizer.json is not JSON');
    expect(load(write('tokenizer.json', '[]'))).toThrow('tokenizer.json is no JSON object');
    expect(load(write('tokenizer.json', '{"version":"1.0"}'))).toThrow('is no tokenizer.json');
    expect(load(write('tokenizer_config.json', 'x'))).toThrow('tokenizer_config.json is not JSON');
    const strange = '{"model":{"type":"Magic","vocab":{}},"added_tokens":[]}';
    expect(load(write('tokenizer.json', strange))).toThrow('cannot be used');
  });

  test('a chat template that is none', () => {
    expect(load(write('chat_template.jinja', '{% for %}'))).toThrow('cannot be parsed');
    const folder = tokenizerFolder('gpt2');
    expect(load(folder, '/nowhere/template.jinja')).toThrow(
      '/nowhere/template.jinja cannot be read',
    );
  });

  test('a template in tokenizer_config.json is found, also among several', () => {
    const chat = { messages: [{ role: 'user', content: 'Hi' }], tools: undefined };
    for (const own of [chatMl, [{ name: 'default', template: chatMl }]]) {
      const folder = tokenizerFolder('gpt2', '');
      expect(loadTokenizer({ ...none, file: folder }).render(chat, {})).toBeUndefined();
      writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ chat_template: own }));
      expect(load(folder)().render(chat, {})).toBe('<|im_start|>user\nHi<|im_end|>\n');
    }
  });
});
