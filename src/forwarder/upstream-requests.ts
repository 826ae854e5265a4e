/**
 * Requests as undici takes them, from what acceptors left in the arena. Forwarder threads.
 *
 * The body of one request is a view of the arena, which holds it until the slot is settled. That of a
 * batch is a copy: `[prompt, prompt, …]` between what stands before and behind the prompt of its first
 * member, byte by byte the same for all of them, as are the headers but for those that name a request.
 */
import { Buffer } from 'node:buffer';
import type { Dispatcher } from 'undici';
import { assert } from '../lib/assert.ts';
import { type Edit, edit, edited, noEdits } from '../protocol/byte-edits.ts';
import { type Route, routeOf } from '../protocol/routes.ts';
import { Asks } from '../protocol/stream-options.ts';
import { unsampledTraceparent } from '../protocol/traceparent.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import type { ModelRow } from '../shm/threads.ts';
import { AttemptTrace } from './attempt-trace.ts';
import type { Delivery } from './delivery.ts';
import type { ReplicaPool } from './pools.ts';
import { type UpstreamHead, upstreamHead } from './upstream-head.ts';

export interface UpstreamRequest extends UpstreamHead {
  /** As the client sent it. */
  readonly body: Buffer | null;
  /** What is changed in it on its way: the name of the model where the replica knows another one. */
  readonly rename: readonly Edit[];
  /** Of the exchange; undefined: the request is not traced. */
  readonly trace: AttemptTrace | undefined;
}

/** A request as undici takes it, and what its exchange needs beside it. */
export interface SentRequest extends Dispatcher.DispatchOptions {
  readonly trace: AttemptTrace | undefined;
  /** Of a stream that another replica may go on with, or that is asked for its usage. */
  readonly delivery?: Delivery | undefined;
  /** What of the usage is asked for that its client has not asked for, and the request without that. */
  readonly adds?: Asks;
  readonly plain?: UpstreamRequest | undefined;
}

/** Of the first member only; replicas use them for their logs and traces. */
const ofOneRequest: ReadonlySet<string> = new Set(['traceparent', 'tracestate', 'x-request-id']);
/** A replica may remember the answer under the key, and that is not to be the one of a batch. */
const alone = 'idempotency-key';

interface MergedMember {
  readonly slot: number;
  readonly request: UpstreamRequest;
}

export class UpstreamRequests {
  readonly #slots: RequestSlots;
  readonly #arena: Uint8Array;
  models: readonly ModelRow[];
  readonly #isTracing: boolean;

  /** `isTracing`: some requests are traced, so that a replica is told of those that are not. */
  constructor(
    slots: RequestSlots,
    arena: Uint8Array,
    models: readonly ModelRow[],
    isTracing: boolean,
  ) {
    this.#slots = slots;
    this.#arena = arena;
    this.models = models;
    this.#isTracing = isTracing;
  }

  of(slot: number, pool: ReplicaPool): UpstreamRequest {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const start = words[row + at.headStart] as number;
    const blob = this.#arena.subarray(start, start + (words[row + at.headLength] as number));
    const route = routeOf(words[row + at.route] as number);
    const head = upstreamHead(blob, route, pool.paths, pool.own);
    const rename = this.#renameOf(row, route, pool.address.servedName ?? '');
    const trace = AttemptTrace.of(head.requestSpan, pool.address);
    if (trace !== undefined) head.headers.push('traceparent', trace.traceparent);
    else if (this.#isTracing && !head.hasTraceparent) {
      head.headers.push('traceparent', unsampledTraceparent()); // without one it would begin a trace
    }
    return { ...head, trace, body: this.#bodyOf(row), rename };
  }

  promptBytes(slot: number): number {
    return this.#slots.words[this.#slots.row(slot) + this.#slots.at.promptBytes] as number;
  }

  /** Whether two bodies are the same but for their prompts, as their replica gets them. */
  areAlike(a: MergedMember, b: MergedMember): boolean {
    const [mine, theirs] = [a.request.body, b.request.body];
    const [at, other] = [this.#promptOf(a.slot), this.#promptOf(b.slot)];
    if (mine === null || theirs === null || at.start !== other.start) return false;
    if (!areSame(a.request.rename, b.request.rename)) return false;
    const isSame = mine.subarray(0, at.start).equals(theirs.subarray(0, other.start));
    return isSame && mine.subarray(at.end).equals(theirs.subarray(other.end));
  }

  /** One request for all members, who are alike: what is changed in one is in all of them. */
  merged(members: readonly MergedMember[]): Dispatcher.DispatchOptions {
    const [first] = members;
    assert(first !== undefined, 'a batch has members');
    const body = first.request.body as Buffer;
    const { start, end } = this.#promptOf(first.slot);
    const { rename, method, path, headers } = first.request;
    const isBefore = (rename[0]?.start ?? 0) < start;
    const parts: Uint8Array[] = [renamed(body, 0, start, isBefore ? rename : noEdits)];
    for (const { slot, request } of members) {
      const prompt = this.#promptOf(slot);
      const whole = request.body as Buffer;
      parts.push(parts.length === 1 ? open : comma, whole.subarray(prompt.start, prompt.end));
    }
    parts.push(close, renamed(body, end, body.length, isBefore ? noEdits : rename));
    return { method, path, headers, body: Buffer.concat(parts) };
  }

  #renameOf(row: number, route: Route, servedName: string): readonly Edit[] {
    const { words, at } = this.#slots;
    const name = this.#nameFor(row, servedName);
    const start = words[row + at.nameStart] as number;
    if (name === '' || start === 0) return noEdits;
    const end = start + (words[row + at.nameBytes] as number);
    return [edit(start, end, route.model === 'multipart' ? name : JSON.stringify(name))];
  }

  /** What the replica calls who is asked for; '' where that is what the body says. */
  #nameFor(row: number, servedName: string): string {
    const { words, at } = this.#slots;
    const model = words[row + at.model] as number;
    const adapter = words[row + at.adapter] as number;
    const isRenamed = ((words[row + at.flags] as number) & RequestFlag.renamed) !== 0;
    if (adapter === 0 && servedName !== '') return servedName;
    const { name, adapters, hasQualifiedAdapters = false } = this.models[model] as ModelRow;
    const ofAdapter = adapter === 0 ? '' : (adapters?.[adapter - 1] ?? '');
    if (adapter !== 0 && hasQualifiedAdapters) return `${servedName || name}:${ofAdapter}`;
    if (!isRenamed) return '';
    return adapter === 0 ? name : ofAdapter;
  }

  #promptOf(slot: number): { readonly start: number; readonly end: number } {
    const { words, at } = this.#slots;
    const start = words[this.#slots.row(slot) + at.promptStart] as number;
    return { start, end: start + this.promptBytes(slot) };
  }

  /** A view of the arena: the body is never copied, and stays there until the slot is settled. */
  #bodyOf(row: number): Buffer | null {
    const { words, at } = this.#slots;
    const length = words[row + at.bodyLength] as number;
    if (length === 0) return null;
    const start = words[row + at.bodyStart] as number;
    return Buffer.from(this.#arena.buffer, this.#arena.byteOffset + start, length);
  }
}

/** A part of the body with the name in it replaced. */
const renamed = (body: Buffer, start: number, end: number, rename: readonly Edit[]): Buffer =>
  rename.length === 0 ? body.subarray(start, end) : edited(body, start, end, rename);

/**
 * The request as it is sent. A body that is changed is a copy, some 20 us for 200 KB: undici writes one
 * piece at once and several in turns of its own.
 */
export function asSent(request: UpstreamRequest): SentRequest {
  const { method, path, headers, body, rename, trace } = request;
  const isRenamed = body !== null && rename.length > 0;
  const sent = isRenamed ? edited(body, 0, body.length, rename) : body;
  return { method, path, headers, body: sent, trace };
}

/**
 * What an attempt sends to a replica that `takes` so much, made of what the client sent. A stream begins
 * as its client asks for it where it may not be asked for its usage, and goes on as far as it can.
 */
export function sentOf(
  request: UpstreamRequest,
  delivery: Delivery | undefined,
  takes: Asks,
): SentRequest {
  const { method, path, headers, body, rename, trace } = request;
  if (delivery === undefined || body === null) return asSent(request);
  if (takes === Asks.nothing && !delivery.isContinued) return asSent(request);
  const sent = delivery.begin(path, body, rename, takes);
  const plain = sent.adds === Asks.nothing ? undefined : request;
  return { method, headers, trace, delivery, plain, ...sent };
}

const areSame = (a: readonly Edit[], b: readonly Edit[]): boolean =>
  a.length === b.length &&
  a.every(({ start, end, bytes }, i) => {
    const other = b[i] as Edit;
    return start === other.start && end === other.end && Buffer.compare(bytes, other.bytes) === 0;
  });

const open = Buffer.from('[');
const comma = Buffer.from(',');
const close = Buffer.from(']');

/** What the heads of requests in one call must have in common; '' for one that goes alone. */
export function sharedHead({ method, path, headers }: UpstreamHead): string {
  let shared = `${method} ${path}`;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name === alone) return '';
    if (!ofOneRequest.has(name)) shared += `\n${name}: ${headers[i + 1]}`;
  }
  return shared;
}
