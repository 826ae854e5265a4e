/** Requests as bytes, as the tests of the acceptor send them. */
import { rawPost } from './raw-client.ts';

export const chat = (extra: object = {}): object => ({ model: 'm', messages: [], ...extra });

export const post = (body: unknown, headers = '', path = '/v1/chat/completions'): string =>
  rawPost(path, body, headers);

export const get = (path: string, headers = '', method = 'GET'): string =>
  `${method} ${path} HTTP/1.1\r\nhost: test\r\n${headers}\r\n`;

export const codeOf = (body: Buffer): string => JSON.parse(body.toString()).error.code;
