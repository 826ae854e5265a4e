/** The multipart scan: the model field, bounds, and forms two parsers would read differently. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import { multipartBoundary, scanMultipartModel } from '../../../src/protocol/multipart.ts';
import { restrictedBit } from '../../../src/protocol/request-caps.ts';
import { createRequestFacts } from '../../../src/protocol/request-facts.ts';

const facts = createRequestFacts();
const type = 'multipart/form-data; boundary=XyZ';

const part = (disposition: string, content: string): string =>
  `--XyZ\r\ncontent-disposition: form-data; ${disposition}\r\n\r\n${content}\r\n`;
const field = (name: string, content: string): string => part(`name="${name}"`, content);
const form = (...parts: string[]): string => `${parts.join('')}--XyZ--\r\n`;

function scan(body: string | Buffer, contentType = type): number {
  const source = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  const arena = new Uint8Array(new SharedArrayBuffer(source.length + 20)).fill(0x2d);
  arena.set(source, 3);
  return scanMultipartModel(arena.subarray(3), source.length, contentType, facts);
}

test('the form of a real client is read', async () => {
  const data = new FormData();
  data.set('file', new Blob([Buffer.alloc(300_000, 'a\r\n--b')]), 'name="model".wav');
  data.set('model', 'whisper-1');
  data.set('stream', 'true');
  const request = new Request('http://x/', { method: 'POST', body: data });
  const contentType = request.headers.get('content-type')!;
  expect(scan(Buffer.from(await request.arrayBuffer()), contentType)).toBe(0);
  expect(facts).toMatchObject({ model: 'whisper-1', stream: true });
});

test.each([
  ['model first', form(field('model', 'm'), part('name="file"; filename="a"', 'x')), 'm'],
  ['model last', form(part('name="file"; filename="a"', 'x'), field('model', 'm')), 'm'],
  ['unquoted name', form(part('name=model', 'm')), 'm'],
  ['a line break first', `\r\n${form(field('model', 'm'))}`, 'm'],
  ['no model', form(field('prompt', 'm')), ''],
  ['model in a file name', form(part('name="file"; filename="; name=model"', 'x')), ''],
  ['model in file content', form(part('name="f"', 'content-disposition: name="model"')), ''],
  ['no parts', '--XyZ--', ''],
])('accepted: %s', (_name, body, model) => {
  expect(scan(body)).toBe(0);
  expect(facts.model).toBe(model);
});

test('what a form names as media is found, however often it is scanned', () => {
  const arena = Buffer.from(
    form(
      field('model', 'm'),
      field('url', 'http://a/'),
      field('image_url[]', 'http://b/'),
      field('image_url[1]', `http://${'c'.repeat(9000)}/`),
      field('url[]', ''),
      field('prompt', 'http://d/'),
      field('file_url', `data:;base64,${'A'.repeat(9000)}`),
    ),
  );
  const urls: string[] = [];
  for (let i = 0; i < 2; i++) {
    expect(scanMultipartModel(arena, arena.length, type, facts, urls)).toBe(0);
    expect(urls).toEqual(['http://a/', 'http://b/', 'http:', 'data:']);
  }
});

const bad = errors.BAD_MULTIPART.number;
test.each([
  ['two models', form(field('model', 'a'), field('model', 'b')), errors.DUPLICATE_KEY.number],
  [
    'a model behind a file',
    form(field('model', 'a'), part('name="f"', 'x'), field('model', 'b')),
    errors.DUPLICATE_KEY.number,
  ],
  ['two names in a part', form(part('name="x"; name="model"', 'm')), bad],
  ['an extended name', form(part("name*=utf-8''model", 'm')), bad],
  ['an escaped name', form(part('name="mod\\el"', 'm')), bad],
  ['garbage after the parameters', form(part('name="model" x', 'm')), bad],
  [
    'two dispositions',
    `--XyZ\r\ncontent-disposition: form-data; name=a\r\ncontent-disposition: form-data; name=b\r\n\r\nm\r\n--XyZ--`,
    bad,
  ],
  ['no end', form(field('model', 'm')).slice(0, -8), bad],
  ['no blank line', '--XyZ\r\ncontent-disposition: form-data; name="model"\r\n--XyZ--', bad],
  ['a bare LF', form(field('model', 'm')).replaceAll('\r\n', '\n'), bad],
  ['a long model', form(field('model', 'm'.repeat(513))), bad],
  ['long part headers', form(part(`name="f"; filename="${'x'.repeat(5000)}"`, 'x')), bad],
  ['too many parts', form(...Array.from({ length: 129 }, (_, i) => field(`f${i}`, 'x'))), bad],
  ['no boundary in the body', 'hello', bad],
  ['a preamble', `preamble\r\n${form(field('model', 'm'))}`, bad],
  // python-multipart skips any line breaks and reads the first part.
  ['a part behind LF', `\n${form(field('model', 'a'))}`, bad],
  [
    'a part that another parser would not see',
    `\n${field('model', 'a')}${form(field('model', 'b'))}`,
    bad,
  ],
  ['a part behind two line breaks', `\r\n\r\n${form(field('model', 'a'))}`, bad],
  [
    'model in capitals',
    form(field('model', 'a'), field('Model', 'b')),
    errors.UNKNOWN_PARAM.number,
  ],
  ['empty', '', bad],
])('refused: %s', (_name, body, expected) => {
  expect(scan(body)).toBe(expected);
});

test('keys of engines are found, and an unusable content type is named', () => {
  expect(scan(form(field('model', 'm'), field('lora_path', 'x')))).toBe(0);
  expect(facts.restricted).toBe(restrictedBit('lora_path'));
  expect(scan(form(field('model', 'm')))).toBe(0);
  expect(facts.restricted).toBe(0);
  expect(scan(form(field('model', 'm')), 'multipart/form-data')).toBe(bad);
  expect(facts.errorParam).toBe('content-type');
  expect(scan('hello')).toBe(bad);
  expect(facts.errorParam).toBe('');
});

describe('the boundary', () => {
  test.each([
    ['multipart/form-data; boundary=abc', 'abc'],
    ['Multipart/Form-Data;boundary="a b:c"', 'a b:c'],
    ['multipart/form-data; boundary=----WebKitFormBoundaryX', '----WebKitFormBoundaryX'],
    ['multipart/form-data', ''],
    ['multipart/form-data; boundary=', ''],
    ['multipart/form-data; boundary="a "', ''],
    ['multipart/form-data; boundary=a; boundary=b', ''],
    [`multipart/form-data; boundary=${'a'.repeat(71)}`, ''],
    ['multipart/mixed; boundary=abc', ''],
    ['multipart/form-data; charset=UTF-8; boundary=abc', 'abc'],
    ['multipart/form-data; boundary=abc; charset=utf-8', 'abc'],
    ['multipart/form-data;charset="utf8";boundary="a b"', 'a b'],
    ['multipart/form-data; charset=utf-8; boundary=abc; charset=utf-8', ''],
    ['multipart/form-data; charset=utf-8; charset=utf-8; boundary=abc', ''],
    ['multipart/form-data; boundary=a; charset=utf-8; boundary=b', ''],
    // Starlette decodes names and values by it.
    ['multipart/form-data; charset=utf-7; boundary=abc', ''],
    ['multipart/form-data; boundary=abc; charset=cp037', ''],
    ['application/json', ''],
  ])('%s', (contentType, expected) => {
    expect(multipartBoundary(contentType)).toBe(expected);
  });
});
