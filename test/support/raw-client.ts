/**
 * A client of bytes: sends exactly what a test says, in the segments it says, and keeps all that
 * comes back. Parses HTTP/1.1 responses on its own, so that it shares no mistake with what it tests.
 */
import { connect, type Socket } from 'node:net';

export interface RawResponse {
  readonly status: number;
  /** Lower-case names; values of a repeated name are joined with `, `. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  /** The framing says that all of it is here. */
  readonly complete: boolean;
}

export interface ParsedResponses {
  readonly responses: readonly RawResponse[];
  /** Bytes that are no response, after the last one that is complete. */
  readonly trailingBytes: Buffer;
  /** Why parsing stopped before the end, when the bytes are wrong and not just missing. */
  readonly problem: string | undefined;
}

export class RawClient {
  readonly socket: Socket;
  /** Resolves to how the connection ended. */
  readonly closed: Promise<'fin' | 'reset'>;
  /** Each read of the socket. */
  readonly reads: Buffer[] = [];
  #waiters: { wanted: (received: Buffer) => boolean; resolve: () => void }[] = [];
  #over = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.reads.push(chunk);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      let ended: 'fin' | 'reset' = 'fin';
      socket.on('error', () => {
        ended = 'reset';
      });
      socket.on('close', () => {
        this.#over = true;
        resolve(ended);
        this.#wake();
      });
    });
  }

  static connect(port: number, host = '127.0.0.1'): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host, noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new RawClient(socket));
      });
    });
  }

  get received(): Buffer {
    return Buffer.concat(this.reads);
  }

  /** Sends bytes; resolves when the kernel has them. Strings are one byte a character. */
  send(bytes: string | Uint8Array): Promise<void> {
    const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
    return new Promise((resolve) => {
      this.socket.write(data, () => resolve());
    });
  }

  /** Sends segments one by one; before each but the first, `gate` decides how long to wait. */
  async sendSegments(
    segments: readonly (string | Uint8Array)[],
    gate: (index: number) => Promise<unknown> = nextTurn,
  ): Promise<void> {
    for (const [index, segment] of segments.entries()) {
      if (index > 0) await gate(index);
      await this.send(segment);
    }
  }

  /** Resolves once the received bytes are as wanted, or the connection is over. */
  until(wanted: (received: Buffer) => boolean): Promise<void> {
    if (this.#over || wanted(this.received)) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ wanted, resolve });
    });
  }

  /** Resolves to the first `count` responses, complete, or to what there was when it was over. */
  async responses(count = 1): Promise<ParsedResponses> {
    await this.until((received) => {
      const { responses, problem } = parseResponses(received, false);
      return problem !== undefined || responses.filter(({ complete }) => complete).length >= count;
    });
    return parseResponses(this.received, this.#over);
  }

  /** Sends FIN. */
  end(): void {
    this.socket.end();
  }

  /** Sends RST. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }

  #wake(): void {
    const received = this.received;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (this.#over || waiter.wanted(received)) waiter.resolve();
      else this.#waiters.push(waiter);
    }
  }
}

/** One request on a fresh connection; resolves to its response and how the connection ended. */
export async function rawRequest(
  port: number,
  request: string | Uint8Array,
): Promise<ParsedResponses & { ended: 'fin' | 'reset' | 'open' }> {
  const client = await RawClient.connect(port);
  await client.send(request);
  const parsed = await client.responses();
  const ended = await Promise.race([client.closed, nextTurn().then(() => 'open' as const)]);
  await client.close();
  return { ...parsed, ended };
}

/** A POST with a JSON body, as bytes. */
export function rawPost(path: string, body: unknown, headers = ''): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const bytes = Buffer.from(text).toString('latin1');
  return `POST ${path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n${headers}content-length: ${bytes.length}\r\n\r\n${bytes}`;
}

/** Parses responses from bytes; `over` says that no more will come. */
export function parseResponses(bytes: Buffer, over: boolean): ParsedResponses {
  const responses: RawResponse[] = [];
  let at = 0;
  while (at < bytes.length) {
    const headEnd = bytes.indexOf('\r\n\r\n', at);
    if (headEnd < 0) break;
    const head = parseHead(bytes.toString('latin1', at, headEnd));
    if (head === undefined) return rest(responses, bytes, at, 'malformed head');
    at = headEnd + 4;
    if (head.status < 200) continue;
    const body = readBody(head.headers, bytes, at, over);
    if (typeof body === 'string') return rest(responses, bytes, at, body);
    responses.push({ ...head, body: body.body, complete: body.complete });
    at = body.end;
    if (!body.complete) break;
  }
  return rest(responses, bytes, at, undefined);
}

interface Body {
  readonly body: Buffer;
  readonly complete: boolean;
  readonly end: number;
}

function rest(
  responses: RawResponse[],
  bytes: Buffer,
  at: number,
  problem: string | undefined,
): ParsedResponses {
  return { responses, trailingBytes: bytes.subarray(at), problem };
}

function parseHead(text: string): { status: number; headers: Map<string, string> } | undefined {
  const [first = '', ...lines] = text.split('\r\n');
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1];
  if (status === undefined) return undefined;
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    if (colon < 1) return undefined;
    const name = line.slice(0, colon).toLowerCase();
    const before = headers.get(name);
    const value = line.slice(colon + 1).trim();
    headers.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return { status: Number(status), headers };
}

function readBody(
  headers: ReadonlyMap<string, string>,
  bytes: Buffer,
  at: number,
  over: boolean,
): Body | string {
  const length = headers.get('content-length');
  const chunked = headers.get('transfer-encoding') === 'chunked';
  if (chunked && length !== undefined) return 'content-length and chunked';
  if (chunked) return readChunks(bytes, at);
  if (length === undefined) {
    return { body: bytes.subarray(at), complete: over, end: bytes.length };
  }
  if (!/^\d+$/.test(length)) return 'malformed content-length';
  const end = at + Number(length);
  const body = bytes.subarray(at, end);
  return { body, complete: bytes.length >= end, end: Math.min(end, bytes.length) };
}

function readChunks(bytes: Buffer, start: number): Body | string {
  const parts: Buffer[] = [];
  let at = start;
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    const line = bytes.toString('latin1', at, lineEnd < 0 ? bytes.length : lineEnd);
    if (line !== '' && !/^[0-9a-fA-F]+\r?$/.test(line)) return 'malformed chunk size';
    if (lineEnd < 0) return { body: Buffer.concat(parts), complete: false, end: bytes.length };
    if (line === '') return 'malformed chunk size';
    const size = Number.parseInt(line, 16);
    const dataEnd = lineEnd + 2 + size;
    if (size === 0) return readTrailers(bytes, dataEnd, Buffer.concat(parts));
    parts.push(bytes.subarray(lineEnd + 2, dataEnd));
    if (bytes.length < dataEnd + 2) {
      return { body: Buffer.concat(parts), complete: false, end: bytes.length };
    }
    if (bytes.toString('latin1', dataEnd, dataEnd + 2) !== '\r\n') return 'malformed chunk end';
    at = dataEnd + 2;
  }
}

/** Behind the last chunk: trailer fields, which are skipped, and an empty line. */
function readTrailers(bytes: Buffer, start: number, body: Buffer): Body | string {
  for (let at = start; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return { body, complete: false, end: bytes.length };
    if (lineEnd === at) return { body, complete: true, end: at + 2 };
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+:/.test(bytes.toString('latin1', at, lineEnd))) {
      return 'malformed chunk end';
    }
    at = lineEnd + 2;
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
