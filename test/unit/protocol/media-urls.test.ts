/** Which bodies name media that a replica would fetch, however they spell it (T51). */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { hasForeignMedia } from '../../../src/protocol/media-urls.ts';

const domains = new Set(['img.example.com']);

function foreign(body: unknown, allowed: ReadonlySet<string> = domains): boolean {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  JSON.parse(text);
  const bytes = Buffer.from(`${text}      "image_url":"http://behind.the.end/"`);
  return hasForeignMedia(bytes, Buffer.byteLength(text), allowed);
}

const chat = (...content: unknown[]): object => ({
  model: 'm',
  messages: [{ role: 'user', content }],
});
const image = (url: string): object => ({ type: 'image_url', image_url: { url } });

test.each([
  ['text', { model: 'm', messages: [{ role: 'user', content: 'see http://evil/ "image_url"' }] }],
  ['JSON in a text', chat({ type: 'text', text: '{"image_url":{"url":"http://evil/"}}' })],
  ['data', chat(image('data:image/png;base64,AAAA'))],
  ['data in capitals', chat(image('DATA:image/png;base64,AAAA'))],
  ['an allowed domain', chat(image('https://img.example.com/a.png'))],
  ['an allowed domain in capitals, with a port', chat(image('HTTPS://IMG.Example.com:8443/a'))],
  ['a url elsewhere', { ...chat(image('data:,x')), metadata: { url: 'http://app/' } }],
  [
    'a schema of a tool',
    { tools: [{ parameters: { properties: { image_url: { type: 'string' } } } }] },
  ],
  ['a source that is no URL', chat({ type: 'image', source: { type: 'base64', data: 'AAAA' } })],
  ['an input of embeddings', { input: [{ text: 'a', image: 'data:image/png;base64,AAAA' }] }],
  ['base64 that is too long for a path', { input: [{ image: `/9j/${'QUJD'.repeat(1024)}` }] }],
  ['a document of an allowed domain', { documents: [{ image: 'https://img.example.com/a' }] }],
  ['an argument of a tool', chat({ type: 'tool_use', input: { image: 'nginx:latest' } })],
  ['a label', { ...chat(), metadata: { image: 'nginx' }, input: 'x' }],
  ['settings of a voice', { modalities: ['audio'], audio: { voice: 'x', format: 'wav' } }],
  ['a model of that name', { model: 'image_url', messages: [] }],
])('passes: %s', (_, body) => {
  expect(foreign(body)).toBe(false);
});

test.each([
  ['another domain', chat(image('https://evil.example.com/a.png'))],
  ['a subdomain', chat(image('https://a.img.example.com/a.png'))],
  ['metadata of a cloud', chat(image('http://169.254.169.254/latest/meta-data'))],
  ['a file', chat(image('file:///etc/passwd'))],
  ['another scheme', chat(image('gopher://img.example.com/'))],
  ['a host behind credentials', chat(image('https://img.example.com@evil/'))],
  ['a backslash', chat(image('https://evil\\@img.example.com/'))],
  ['a line break', chat(image('https://img.example.com/\nHost: evil'))],
  ['no URL', chat(image('//evil/'))],
  ['a text in place of the object', chat({ type: 'image_url', image_url: 'http://evil/' })],
  ['video', chat({ type: 'video_url', video_url: { url: 'http://evil/' } })],
  ['audio', chat({ type: 'audio_url', audio_url: { url: 'http://evil/' } })],
  [
    'the url behind others',
    chat({ image_url: { detail: 'high', x: { y: [1] }, url: 'http://evil/' } }),
  ],
  [
    'the Responses API',
    { input: [{ content: [{ type: 'input_image', image_url: 'http://evil/' }] }] },
  ],
  ['a file of the Responses API', { input: [{ type: 'input_file', file_url: 'http://evil/' }] }],
  ['the Messages API', chat({ type: 'image', source: { type: 'url', url: 'http://evil/' } })],
  ['an image of embeddings', { input: [{ text: 'a', image: 'http://evil/' }] }],
  ['a video of embeddings', { input: [{ video: 'http://evil/' }] }],
  ['a file by its path', { input: [{ image: '/etc/passwd' }] }],
  ['a file of base64 letters', { input: [{ video: `/${'abc/'.repeat(1000)}png` }] }],
  ['a file as a URL', { input: [{ video: 'file:///etc/passwd' }] }],
  ['a scheme of SGLang', { input: [{ image: 'video:/etc/passwd' }] }],
  ['an image of a document', { query: 'q', documents: ['a', { image: 'http://evil/' }] }],
  ['an image to be changed', { model: 'm', prompt: 'p', image: 'http://evil/' }],
  ['an image behind what is no input', { metadata: {}, input: [{ image: 'http://evil/' }] }],
  ['audio', { documents: [{ audio: 'http://evil/' }] }],
  ['a URL that is as long', { input: [{ image: `http://evil/${'A'.repeat(9000)}` }] }],
  ['behind an allowed one', chat(image('https://img.example.com/'), image('http://evil/'))],
  ['a very long one', chat(image(`https://img.example.com/${'a'.repeat(9000)}`))],
  ['a tool result', { messages: [{ role: 'tool', content: [image('http://evil/')] }] }],
])('does not pass: %s', (_, body) => {
  expect(foreign(body)).toBe(true);
});

test.each([
  ['of the key', '{"messages":[{"image\\u005furl":{"\\u0075rl":"http://evil/"}}]}'],
  ['of the scheme', '{"messages":[{"image_url":{"url":"\\u0068ttp://evil/"}}]}'],
  ['of a short key', '{"input":[{"i\\u006dage":"http://evil/"}]}'],
  ['of slashes', '{"messages":[{"image_url":{"url":"http:\\/\\/evil\\/"}}]}'],
  ['of all of it', '{"\\u0069mage_url" : "\\u0068ttp:\\u002f/evil"}'],
])('escapes hide nothing: %s', (_, body) => {
  expect(foreign(body)).toBe(true);
});

test('slashes of base64 may be escaped, nothing else', () => {
  const body = (text: string): string => `{"input":[{"image":"${text}"}]}`;
  expect(foreign(body('QUJD\\/'.repeat(1000)))).toBe(false);
  expect(foreign(body('QUJD\\u002f'.repeat(1000)))).toBe(true);
});

test('whatever is around it, a foreign image is found and an allowed one is not', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), fc.jsonValue({ maxDepth: 2 }), (before, inside) => {
      const body = (url: string): object =>
        chat(before, { type: 'image_url', image_url: { inside, url } }, before);
      const isForeignAlone = foreign(body('data:,x'));
      expect(foreign(body('http://evil/'))).toBe(true);
      expect(foreign(body('https://img.example.com/'))).toBe(isForeignAlone);
    }),
  );
});

test('many strings, or deep ones, behind and around a source cost one walk', () => {
  const strings = `[${'"",'.repeat(200_000)}""]`;
  const body = (url: string): string =>
    `{"source":{"a":${strings}},"url":"http://app/","b":${'['.repeat(500)}{"source":{"url":"${url}"}}${']'.repeat(500)}}`;
  expect(foreign(body('https://img.example.com/'))).toBe(false);
  expect(foreign(body('http://evil/'))).toBe(true);
});
