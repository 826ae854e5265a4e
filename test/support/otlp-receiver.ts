/**
 * A collector for tests: an HTTP server that takes OTLP/HTTP protobuf and keeps the spans, decoded by hand
 * so that what is on the wire is what is tested.
 */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export const spanKinds = { internal: 1, server: 2, client: 3 } as const;

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly name: string;
  /** One of spanKinds. */
  readonly kind: number;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** 0 unset, 2 error. */
  readonly status: number;
  readonly service: unknown;
}

export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  /** Headers of each export. */
  readonly exports: IncomingHttpHeaders[] = [];
  /** Answered instead of 200. */
  failWith = 0;
  /** Exports are taken in and not answered while it is set. */
  isHung = false;
  readonly #server: Server;
  #waiters: { readonly test: () => boolean; readonly resolve: () => void }[] = [];

  private constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        this.exports.push(request.headers);
        if (this.isHung) {
          this.#wake();
          return;
        }
        const isTaken = this.failWith === 0 && request.url === '/v1/traces';
        if (isTaken) this.spans.push(...decodeExport(Buffer.concat(chunks)));
        response.writeHead(isTaken ? 200 : this.failWith || 404, {
          'content-type': 'application/x-protobuf',
        });
        response.end();
        this.#wake();
      });
    });
  }

  static async listen(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, '127.0.0.1', resolve));
    return receiver;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1/traces`;
  }

  /** The spans of a trace, once there are so many of them. */
  async trace(traceId: string, spans: number): Promise<ReceivedSpan[]> {
    const found = () => this.spans.filter((span) => span.traceId === traceId);
    await this.until(() => found().length >= spans);
    return found();
  }

  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ test, resolve }));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #wake(): void {
    const done = this.#waiters.filter(({ test }) => test());
    this.#waiters = this.#waiters.filter((waiter) => !done.includes(waiter));
    for (const { resolve } of done) resolve();
  }
}

/** A field of a protobuf message: bytes, or a number. */
type Field = Buffer | bigint;

/** Every field of a message by number, in order; wire types 0, 1, 2 and 5. */
function fieldsOf(message: Buffer): Map<number, Field[]> {
  const fields = new Map<number, Field[]>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const take = (length: number): Buffer => {
    at += length;
    if (at > message.length) throw new Error('a protobuf message is cut');
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const tag = Number(varint());
    const number = tag >>> 3;
    let field: Field;
    if ((tag & 7) === 0) field = varint();
    else if ((tag & 7) === 1) field = take(8).readBigUInt64LE();
    else if ((tag & 7) === 2) field = take(Number(varint()));
    else if ((tag & 7) === 5) field = BigInt(take(4).readUInt32LE());
    else throw new Error(`wire type ${tag & 7}`);
    fields.set(number, [...(fields.get(number) ?? []), field]);
  }
  return fields;
}

const messages = (fields: Map<number, Field[]>, number: number): Buffer[] =>
  (fields.get(number) ?? []) as Buffer[];
const one = (fields: Map<number, Field[]>, number: number): Field | undefined =>
  fields.get(number)?.[0];

function attributesOf(pairs: readonly Buffer[]): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const fields = fieldsOf(pair);
      return [String(one(fields, 1)), anyValueOf(fieldsOf(one(fields, 2) as Buffer))];
    }),
  );
}

/** An AnyValue: text, truth, whole number or double. */
function anyValueOf(value: Map<number, Field[]>): unknown {
  if (value.has(1)) return String(one(value, 1));
  if (value.has(2)) return one(value, 2) === 1n;
  if (value.has(3)) return Number(one(value, 3));
  const bits = new BigUint64Array([one(value, 4) as bigint]);
  return new Float64Array(bits.buffer)[0];
}

/** The spans of an ExportTraceServiceRequest. */
function decodeExport(body: Buffer): ReceivedSpan[] {
  return messages(fieldsOf(body), 1).flatMap((bytes) => {
    const ofResource = fieldsOf(bytes);
    const resource = fieldsOf(one(ofResource, 1) as Buffer);
    const service = attributesOf(messages(resource, 1))['service.name'];
    return messages(ofResource, 2).flatMap((scope) =>
      messages(fieldsOf(scope), 2).map((span) => spanOf(fieldsOf(span), service)),
    );
  });
}

function spanOf(fields: Map<number, Field[]>, service: unknown): ReceivedSpan {
  const hex = (number: number): string => ((one(fields, number) ?? '') as Buffer).toString('hex');
  const status = one(fields, 15) as Buffer | undefined;
  return {
    traceId: hex(1),
    spanId: hex(2),
    parentId: hex(4),
    name: String(one(fields, 5)),
    kind: Number(one(fields, 6)),
    startNs: one(fields, 7) as bigint,
    endNs: one(fields, 8) as bigint,
    attributes: attributesOf(messages(fields, 9)),
    status: status === undefined ? 0 : Number(one(fieldsOf(status), 3) ?? 0n),
    service,
  };
}
