/** A replica made of bytes: a TCP server whose test writes every answer, and sees every close. */
import { createServer, type Server, type Socket } from 'node:net';

export interface RawRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly connection: RawConnection;
  /** Counts the requests of this replica from 0. */
  readonly index: number;
}

export interface RawConnection {
  readonly socket: Socket;
  /** Requests it has carried. */
  requests: number;
  readonly closed: Promise<void>;
  readonly isClosed: () => boolean;
}

export type Respond = (request: RawRequest) => void;

export class RawReplica {
  readonly requests: RawRequest[] = [];
  readonly connections: RawConnection[] = [];
  respond: Respond;
  #server: Server;
  #waiters: { readonly test: () => boolean; readonly resolve: () => void }[] = [];

  private constructor(server: Server, respond: Respond) {
    this.#server = server;
    this.respond = respond;
  }

  static async listen(respond: Respond = () => {}, port = 0): Promise<RawReplica> {
    const server = createServer();
    const replica = new RawReplica(server, respond);
    server.on('connection', (socket) => replica.#accept(socket));
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return replica;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Resolves once `count` requests have arrived in full. */
  arrivals(count: number): Promise<void> {
    return this.until(() => this.requests.length >= count);
  }

  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ test, resolve }));
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(socket: Socket): void {
    socket.setNoDelay(true);
    let isClosed = false;
    const closed = new Promise<void>((resolve) => {
      socket.on('close', () => {
        isClosed = true;
        resolve();
        this.#changed();
      });
    });
    const connection: RawConnection = { socket, requests: 0, closed, isClosed: () => isClosed };
    this.connections.push(connection);
    this.#changed();
    let pending: Buffer = Buffer.alloc(0);
    socket.on('error', () => {}); // resets are what some tests are about
    socket.on('data', (chunk) => {
      pending = this.#parse(connection, Buffer.concat([pending, chunk]));
    });
  }

  #parse(connection: RawConnection, bytes: Buffer): Buffer {
    let rest = bytes;
    for (;;) {
      const headEnd = rest.indexOf('\r\n\r\n');
      if (headEnd < 0) return rest;
      const [line, ...fields] = rest.toString('latin1', 0, headEnd).split('\r\n');
      const headers = Object.fromEntries(
        fields.map((field) => {
          const colon = field.indexOf(':');
          return [field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim()];
        }),
      );
      const end = headEnd + 4 + Number(headers['content-length'] ?? 0);
      if (rest.length < end) return rest;
      const [method = '', path = ''] = (line ?? '').split(' ');
      const body = rest.subarray(headEnd + 4, end);
      const index = this.requests.length;
      const request: RawRequest = { method, path, headers, body, connection, index };
      this.requests.push(request);
      connection.requests++;
      rest = rest.subarray(end);
      this.respond(request);
      this.#changed();
    }
  }

  #changed(): void {
    const done = this.#waiters.filter(({ test }) => test());
    this.#waiters = this.#waiters.filter((waiter) => !done.includes(waiter));
    for (const { resolve } of done) resolve();
  }
}

export const sseHead =
  'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n';

/** One HTTP chunk. */
export function chunk(data: string | Uint8Array): Buffer {
  const bytes = Buffer.from(data);
  return Buffer.concat([
    Buffer.from(`${bytes.length.toString(16)}\r\n`),
    bytes,
    Buffer.from('\r\n'),
  ]);
}
export const lastChunk = '0\r\n\r\n';

export function jsonAnswer(value: unknown, status = 200, headers = ''): string {
  const body = typeof value === 'string' ? value : JSON.stringify(value);
  const length = Buffer.byteLength(body);
  return `HTTP/1.1 ${status} X\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n${headers}\r\n${body}`;
}

export const roleEvent =
  'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n';
export const tokenEvent = (text: string): string =>
  `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":${JSON.stringify(text)}},"finish_reason":null}]}\n\n`;
export const finishEvent =
  'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n';
export const usageEvent =
  'data: {"id":"c1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}\n\n';
export const doneEvent = 'data: [DONE]\n\n';

/** An event stream: its head and the given parts as they are. */
export const sse = (...parts: readonly (string | Buffer)[]): Buffer =>
  Buffer.concat([Buffer.from(sseHead), ...parts.map((part) => Buffer.from(part))]);
