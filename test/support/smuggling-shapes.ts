/**
 * Requests that two HTTP parsers could read differently, as raw bytes: the rows of RELIABILITY 3.1 and
 * the shapes of the public literature (CL.TE, TE.CL, TE.TE, CL.0, chunk tricks, line tricks). Each
 * carries a second request that must never be executed.
 */
export interface Shape {
  readonly name: string;
  readonly bytes: string;
  /**
   * refuse: the first answer, if any, is an error. any: the request itself is legal for some engine.
   * trimmed: uWebSockets.js takes bytes from 0x80 on off both ends of a value before anybody sees
   * them, and admits what node refuses (docs/adr/0007). No front proxy may pass it on.
   */
  readonly first: 'refuse' | 'any' | 'trimmed';
}

/** Whether the engine must refuse the request. */
export const isRefused = ({ first }: Shape, engine: 'uws' | 'node'): boolean =>
  first === 'refuse' || (first === 'trimmed' && engine === 'node');

/** Stands in the body of the request nobody sent. */
export const hiddenMark = 'HIDDEN';
const hiddenBody = `{"model":"m","messages":["${hiddenMark}"]}`;
const path = '/v1/chat/completions';
export const hiddenRequest = `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Length: ${hiddenBody.length}\r\n\r\n${hiddenBody}`;

const H = hiddenRequest;
const body = '{"model":"m","messages":[]}';
const size = body.length;
const start = `POST ${path} HTTP/1.1\r\nHost: t\r\n`;
const post = (headers: string, rest: string): string => `${start}${headers}\r\n${rest}`;
const chunk = (data: string): string => `${data.length.toString(16)}\r\n${data}\r\n`;
const chunked = (rest: string): string => post('Transfer-Encoding: chunked\r\n', rest);
const last = '0\r\n\r\n';
const cl = (value: string | number): string => `Content-Length: ${value}\r\n`;
const te = (value: string): string => `Transfer-Encoding: ${value}\r\n`;

const refuse = (name: string, bytes: string): Shape => ({ name, bytes, first: 'refuse' });
const trimmed = (name: string, bytes: string): Shape => ({ name, bytes, first: 'trimmed' });
const any = (name: string, bytes: string): Shape => ({ name, bytes, first: 'any' });

const lengths: readonly Shape[] = [
  refuse('two lengths, 3 then 0', post(cl(3) + cl(0), `abc${H}`)),
  refuse('two lengths, 0 then all', post(cl(0) + cl(H.length), H)),
  refuse('two equal lengths', post(cl(size) + cl(size), body + H)),
  refuse('empty length', post(cl(''), H)),
  refuse('length with plus', post(cl('+3'), `abc${H}`)),
  refuse('length with minus', post(cl('-3'), `abc${H}`)),
  refuse('length in hex', post(cl('0x3'), `abc${H}`)),
  refuse('length as list', post(cl('3, 3'), `abc${H}`)),
  refuse('length as list of two', post(cl(`3,${H.length}`), `abc${H}`)),
  refuse('length overflows', post(cl('18446744073709551619'), `abc${H}`)),
  refuse('length with exponent', post(cl('1e1'), `abc${H}`)),
  refuse('length with inner space', post(cl('1 0'), `abc${H}`)),
  refuse('length with a fold', post('Content-Length:\r\n 3\r\n', `abc${H}`)),
  refuse('space before the colon of the length', post(`Content-Length : ${size}\r\n`, body + H)),
  refuse('no length and no encoding', post('', H)),
  refuse('nameless header before the length', post(`: x\r\n${cl(3)}`, `abc${H}`)),
  refuse(
    'nameless header before the encoding',
    post(`: x\r\n${te('chunked')}`, chunk(body) + last + H),
  ),
];

const encodings: readonly Shape[] = [
  refuse('length and chunked', post(cl(size) + te('chunked'), last + H)),
  refuse('chunked and length', post(te('chunked') + cl(5), last + H)),
  refuse('empty length and chunked', post(cl('') + te('chunked'), last + H)),
  refuse('length and empty encoding', post(cl(size) + te(''), body + H)),
  ...[
    'identity',
    'xchunked',
    'gzip, chunked',
    'chunked, identity',
    'chunked;q=1',
    'x',
    '"chunked"',
    '\x0bchunked',
    'chunke\xe4',
  ].map((value) =>
    refuse(`encoding ${JSON.stringify(value)}`, post(te(value), chunk(body) + last + H)),
  ),
  refuse('two encodings', post(te('chunked') + te('chunked'), chunk(body) + last + H)),
  refuse('two encodings, one unknown', post(te('chunked') + te('cow'), chunk(body) + last + H)),
  refuse(
    'space before the colon of the encoding',
    post(`Transfer-Encoding : chunked\r\n`, last + H),
  ),
  refuse(
    'encoding behind a bare CR',
    post(`X: y\rTransfer-Encoding: chunked\r\n${cl(size)}`, body + H),
  ),
  refuse('encoding with a fold', post('Transfer-Encoding:\r\n chunked\r\n', last + H)),
  refuse(
    'encoding as a folded line of another header',
    post(`X: y\r\n Transfer-Encoding: chunked\r\n${cl(size)}`, body + H),
  ),
  refuse(
    'encoding with an underscore',
    post(`Transfer_Encoding: chunked\r\n${cl(last.length + H.length)}`, last + H),
  ),
  any('encoding in capitals', post(te('CHUNKED'), chunk(body) + last + H)),
];

const chunks: readonly Shape[] = [
  refuse('chunk size without digits', chunked(`\r\n${H}`)),
  refuse('chunk size with a sign', chunked(`-1\r\n${H}`)),
  refuse('chunk size with plus', chunked(`+3\r\nabc\r\n${last}${H}`)),
  refuse('chunk size with 0x', chunked(`0x3\r\nabc\r\n${last}${H}`)),
  refuse('chunk size overflows', chunked(`ffffffffffffffff1\r\nabc\r\n${last}${H}`)),
  refuse('chunk size is no hex', chunked(`g\r\nabc\r\n${last}${H}`)),
  refuse('chunk size behind spaces', chunked(`   3\r\nabc\r\n${last}${H}`)),
  refuse('wrong end of a chunk', chunked(`3\r\nabcXX${last}${H}`)),
  refuse('missing end of a chunk', chunked(`3\r\nabc${last}${H}`)),
  refuse('chunk longer than said', chunked(`3\r\nabcdef\r\n${last}${H}`)),
  any('chunk size with a space', chunked(`1b \r\n${body}\r\n${last}${H}`)),
  any('chunk size with a colon', chunked(`1b:\r\n${body}\r\n${last}${H}`)),
  any('bare LF after the chunk size', chunked(`1b\n${body}\r\n${last}${H}`)),
  any('bare LF after a chunk', chunked(`1b\r\n${body}\n${last}${H}`)),
  any('bare LF after the last chunk', chunked(`${chunk(body)}0\n\n${H}`)),
  any('chunk extension', chunked(`1b;a=b\r\n${body}\r\n${last}${H}`)),
  any('chunk extension with LF', chunked(`1b;a\nb\r\n${body}\r\n${last}${H}`)),
  any('chunk extension of the last chunk', chunked(`${chunk(body)}0;a\r\n\r\n${H}`)),
  any('trailer', chunked(`${chunk(body)}0\r\nX: y\r\n\r\n${H}`)),
  any('framing header as trailer', chunked(`${chunk(body)}0\r\nContent-Length: 3\r\n\r\n${H}`)),
  any('chunk size with leading zeros', chunked(`00000000000000000001b\r\n${body}\r\n${last}${H}`)),
  any('a proper chunked request with one behind it', chunked(chunk(body) + last + H)),
];

const lines: readonly Shape[] = [
  refuse('header with a NUL', post(`X: a\0b\r\n${cl(size)}`, body + H)),
  refuse('name with a NUL', post(`X\0: a\r\n${cl(size)}`, body + H)),
  refuse('bare CR in a value', post(`X: a\rb\r\n${cl(size)}`, body + H)),
  refuse(
    'fold before the first header',
    `POST ${path} HTTP/1.1\r\n Host: t\r\n${cl(size)}\r\n${body}${H}`,
  ),
  refuse('header without a colon', post(`X\r\n${cl(size)}`, body + H)),
  refuse(
    'LF for all line ends',
    `POST ${path} HTTP/1.1\nHost: t\n${cl(size).trim()}\n\n${body}${H}`,
  ),
  refuse('LF ends the head', `${start}Content-Length: ${size}\n\n${body}${H}`),
  refuse('two hosts', post(`Host: u\r\n${cl(size)}`, body + H)),
  refuse('empty host', `POST ${path} HTTP/1.1\r\nHost:\r\n${cl(size)}\r\n${body}${H}`),
  refuse('no host', `POST ${path} HTTP/1.1\r\n${cl(size)}\r\n${body}${H}`),
  refuse(
    'two authorizations',
    post(`Authorization: a\r\nAuthorization: b\r\n${cl(size)}`, body + H),
  ),
  refuse('two content types', post(`Content-Type: a\r\nContent-Type: b\r\n${cl(size)}`, body + H)),
  refuse(
    'two spaces in the request line',
    `POST  ${path} HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`,
  ),
  refuse(
    'tabs in the request line',
    `POST\t${path}\tHTTP/1.1\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`,
  ),
  refuse('lower-case method', `post ${path} HTTP/1.1\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  refuse('unknown method', `SMUG ${path} HTTP/1.1\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  refuse('version 1.2', `POST ${path} HTTP/1.2\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  refuse('version 2.0', `POST ${path} HTTP/2.0\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  refuse('no version', `POST ${path}\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  refuse('connect', `CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n${H}`),
  refuse('preface of HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${H}`),
  refuse('absolute form', `POST http://t${path} HTTP/1.1\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  any('options star', `OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n${H}`),
  any('version 1.0', `POST ${path} HTTP/1.0\r\nHost: t\r\n${cl(size)}\r\n${body}${H}`),
  any('empty line in front', `\r\n${post(cl(size), body)}`),
];

const bodies: readonly Shape[] = [
  any('get with a body', `GET /healthz HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`),
  any(
    'get with a hidden length',
    `GET /healthz HTTP/1.1\r\nHost: t\r\n: x\r\n${cl(H.length)}\r\n${H}`,
  ),
  any(
    'get with a chunked body',
    `GET /healthz HTTP/1.1\r\nHost: t\r\n${te('chunked')}\r\n${last}${H}`,
  ),
  any('get with one behind it', `GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n${H}`),
  any('head with a body', `HEAD /healthz HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`),
  any('delete with one behind it', `DELETE /v1/responses/a HTTP/1.1\r\nHost: t\r\n\r\n${H}`),
  any('options with a body', `OPTIONS ${path} HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`),
  refuse(
    'wrong method with a body',
    `POST /healthz HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`,
  ),
  refuse(
    'unknown path with a body',
    `POST /nothing HTTP/1.1\r\nHost: t\r\n${cl(H.length)}\r\n${H}`,
  ),
  refuse('a request as body', post(cl(H.length), H)),
  refuse('expectation with a list', post(`Expect: 100-continue, x\r\n${cl(H.length)}`, H)),
  refuse(
    'two expectations',
    post(`Expect: 100-continue\r\nExpect: 100-continue\r\n${cl(H.length)}`, H),
  ),
  refuse('expectation and a request as body', post(`Expect: 100-continue\r\n${cl(H.length)}`, H)),
  refuse(
    'upgrade to h2c with a request as body',
    post(`Connection: Upgrade\r\nUpgrade: h2c\r\n${cl(H.length)}`, H),
  ),
  refuse('compressed body', post(`Content-Encoding: gzip\r\n${cl(H.length)}`, H)),
];

/** Bytes that are no text at the ends of the values that frame. */
const highBytes: readonly Shape[] = [
  // Read as a length, the connection stays open and a request behind it is the next: here it is the body.
  ...['\x80', '\xa0', '\xff', '\xc2\xa0', '\xff\xff'].flatMap((byte) => [
    trimmed(`length with ${JSON.stringify(byte)} behind it`, post(cl(`${H.length}${byte}`), H)),
    trimmed(`length with ${JSON.stringify(byte)} before it`, post(cl(`${byte}${H.length}`), H)),
    trimmed(
      `encoding with ${JSON.stringify(byte)} behind it`,
      post(te(`chunked${byte}`), chunk(body) + last + H),
    ),
    trimmed(
      `encoding with ${JSON.stringify(byte)} before it`,
      post(te(`${byte}chunked`), chunk(body) + last + H),
    ),
  ]),
  trimmed('length with a high byte and nothing behind it', post(cl(`${size}\xff`), body)),
  refuse('length with a high byte inside', post(cl('2\xff7'), body + H)),
  refuse('length of a high byte', post(cl('\xff'), body + H)),
  refuse('encoding of a high byte', post(te('\xff'), chunk(body) + last + H)),
  refuse('length with a high byte and chunked', post(cl('3\xff') + te('chunked'), last + H)),
  refuse('length and chunked with a high byte', post(cl(size) + te('chunked\xff'), last + H)),
  refuse('two lengths, one with a high byte', post(cl(3) + cl(`${size}\xff`), body + H)),
];

export const shapes: readonly Shape[] = [
  ...[...lengths, ...encodings, ...highBytes],
  ...[...chunks, ...lines, ...bodies],
];
