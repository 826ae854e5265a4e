/**
 * HTTP/1.1 responses as strings of bytes (one character, one byte), for socket.write(…, 'latin1').
 *
 * A latin1 write of a flat string needs no Buffer, and length is byte length. Pure.
 */
export type Framing = 'chunked' | 'length' | 'close';

const REASONS: Record<number, string> = {
  200: 'OK',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  413: 'Payload Too Large',
  417: 'Expectation Failed',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  529: 'Overloaded',
};

export const LAST_CHUNK = '0\r\n\r\n';
export const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n';

/** Status line and the headers every answer has; `extra` is whole `name: value\r\n` lines. */
export function headLines(status: number, contentType: string, extra: string): string {
  const reason = REASONS[status] ?? 'Status';
  return `HTTP/1.1 ${status} ${reason}\r\nserver: replica\r\ncontent-type: ${contentType}\r\n${extra}`;
}

/** The rest of a head: how the body ends, whether the connection lives on, and the empty line. */
export function framingLines(framing: Framing, bodyBytes: number, keepAlive: boolean): string {
  const connection = keepAlive && framing !== 'close' ? '' : 'connection: close\r\n';
  if (framing === 'length') return `content-length: ${bodyBytes}\r\n${connection}\r\n`;
  if (framing === 'chunked') return `transfer-encoding: chunked\r\n${connection}\r\n`;
  return `${connection}\r\n`;
}

export function chunk(payload: string): string {
  return `${payload.length.toString(16)}\r\n${payload}\r\n`;
}

/** Text as UTF-8 bytes, one byte a character. ASCII, the common case, is returned as it is. */
export function wireText(text: string): string {
  return /[^\x00-\x7f]/.test(text) ? Buffer.from(text).toString('latin1') : text;
}

/** A value as JSON in the form of wireText. */
export function wireJson(value: unknown): string {
  return wireText(JSON.stringify(value));
}
